package outbox_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
)

func ids(all []driver.Message) (list []string) {
	for _, m := range all {
		list = append(list, m.ID)
	}
	return list
}

func TestKeepAndResend(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		fill(t, db, 1100)
		other := message("other", 0)
		other.Topic = "order.paid.v1"
		add(t, db, other)
		var b broker
		r := outbox.NewRelay(db, b.send, &outbox.RelayOptions{Keep: time.Hour})
		stop := start(t, r)
		eventually(t, "all are sent", func() bool { return b.has(1101)() && count(t, db, "kaptar_outbox") == 0 })
		if n := count(t, db, "kaptar_outbox_sent"); n != 1101 {
			t.Errorf("kept %d, want all 1101", n)
		}
		sent := ids(b.all())
		if n, err := outbox.Resend(t.Context(), db, time.Now().Add(time.Hour), ""); n != 0 || err != nil {
			t.Errorf("Resend since tomorrow = %d, %v, want 0", n, err)
		}
		if n, err := outbox.Resend(t.Context(), db, time.Time{}, "order.paid.v1"); n != 1 || err != nil {
			t.Errorf("Resend of one topic = %d, %v, want 1", n, err)
		}
		eventually(t, "it is sent again", func() bool { return b.has(1102)() && count(t, db, "kaptar_outbox_sent") == 1101 })
		again := b.all()[1101]
		if fmt.Sprint(again) != fmt.Sprint(other) {
			t.Errorf("sent again %+v, want as it was: %+v", again, other)
		}
		// While the relay sends what is put back, and keeps it again.
		n, err := outbox.Resend(t.Context(), db, time.Now().Add(-time.Hour), "")
		if n != 1101 || err != nil {
			t.Errorf("Resend = %d, %v, want 1101", n, err)
		}
		eventually(t, "they are sent again", func() bool { return b.has(2203)() && count(t, db, "kaptar_outbox") == 0 })
		stop()
		if got, want := fmt.Sprint(ids(b.all())[1102:]), fmt.Sprint(sent); got != want {
			t.Error("sent again in another order than before")
		}
		if n := count(t, db, "kaptar_outbox_sent"); n != 1101 {
			t.Errorf("kept %d, want still 1101", n)
		}
	})
}

func TestKeptEventsAreForgotten(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		fill(t, db, 5000)
		var b broker
		stop := start(t, outbox.NewRelay(db, b.send, &outbox.RelayOptions{Keep: time.Hour}))
		eventually(t, "all are sent", func() bool { return b.has(5000)() && count(t, db, "kaptar_outbox") == 0 })
		stop()
		exec(t, db, "UPDATE kaptar_outbox_sent SET sent_at = sent_at - 3600001 WHERE id <= 4900")
		stop = start(t, outbox.NewRelay(db, b.send, &outbox.RelayOptions{Keep: time.Hour}).Poll(time.Millisecond))
		eventually(t, "those of before are gone", func() bool { return count(t, db, "kaptar_outbox_sent") == 100 })
		stop()
		start(t, outbox.NewRelay(db, b.send, nil).Poll(time.Millisecond)) // switched off
		eventually(t, "nothing is kept", func() bool { return count(t, db, "kaptar_outbox_sent") == 0 })
	})
}
