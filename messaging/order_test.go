package messaging

import (
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// TestGap: an event waits for missing ones of its key; they go first when they come, also after it
// was set aside, and other keys go on.
func TestGap(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.publish("k", 1, 4, 3)
		b.publish("other", 1)
		b.wait(20 * time.Second)
		b.want("k", 1)
		b.want("other", 1)
		b.gauge(b.c.bus.metrics.gaps, 0)
		b.wait(20 * time.Second)
		b.gauge(b.c.bus.metrics.gaps, 1)
		b.publish("k", 2)
		b.want("k", 1, 2, 3, 4)
		b.gauge(b.c.bus.metrics.gaps, 0)

		b.publish("k", 7, 8)
		b.wait(5*time.Minute + 10*time.Second)
		for _, d := range b.aside("k-7 dead", "k-8 parked") {
			if d.State == outbox.Dead && !strings.Contains(d.Reason, "numbers 5 to 6 of its key have not come") {
				b.Errorf("reason: got %q", d.Reason)
			}
		}
		b.publish("k", 9)
		b.publish("k", 6)
		b.want("k", 1, 2, 3, 4)
		if d := b.aside("k-6 dead", "k-7 dead", "k-8 parked", "k-9 parked"); len(d) == 4 && !strings.Contains(d[3].Reason, "numbers 5 to 5 of its key") {
			b.Errorf("reason of the first: got %q, want what is missing", d[3].Reason)
		}
		b.publish("k", 5)
		b.wait(2 * time.Second)
		b.want("k", 1, 2, 3, 4, 5, 6, 7, 8, 9)
		b.publish("k", 10)
		b.want("k", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		b.aside()

		b.publish("k", 12, 13)
		b.wait(6 * time.Minute)
		letters := b.aside("k-12 dead", "k-13 parked")
		if err := b.operate(outbox.ReplayDeadLetter, letters[0].ID); err != nil { // without 11
			b.Fatal(err)
		}
		b.want("k", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13)
		b.publish("k", 11)
		b.aside("k-11 dead")
	})
}

// TestFirstSight: where the order of a key begins.
func TestFirstSight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from     Start
		at, late []int
		dead     []string
	}{
		"from now":           {FromNow, []int{5}, []int{5}, []string{"k-4 dead"}},
		"from the beginning": {FromBeginning, nil, []int{4, 5}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, true, &SubscribeOptions{From: c.from}, func(b *bubble) {
				b.wait(time.Second)
				b.publish("k", 5)
				b.want("k", c.at...)
				b.publish("k", 4)
				b.wait(time.Minute)
				b.want("k", c.late...)
				b.aside(c.dead...)
				b.publish("k", 6)
				b.want("k", append(c.late, 6)...)
				b.publish("k", 3)
				b.aside(append(c.dead, "k-3 dead")...)
			})
		})
	}
}

// TestPublisherFromABackup: a number that comes again with another event is no duplicate.
func TestPublisherFromABackup(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.broker.DuplicateWindow = -1
		const before, skewed, after = "01900000-0000-7000-8000-000000000000", "01900000-e000-7000-8000-000000000000", "01900001-0000-7000-8000-000000000000"
		b.publish("k", 1, 2)
		for _, e := range []driver.Message{bubbleEvent("k", 30, 3), bubbleEvent("k", 31, 1), bubbleEvent("k", 32, 2)} {
			e.ID = map[string]string{"k-30": before, "k-31": skewed, "k-32": after}[e.ID] // 57 s and 65 s later
			b.send(e)
			b.wait(0)
		}
		b.publish("k", 1, 2)
		e := bubbleEvent("k", 20, 3)
		b.send(e)
		b.wait(0)
		for _, d := range b.aside("k-20 dead", after+" dead") {
			if !strings.Contains(d.Reason, "the publisher's database seems to be an older copy") {
				b.Errorf("reason: got %q", d.Reason)
			}
		}
		b.want("k", 1, 2, 30)
	})
}

// TestNoNumber: an event without a number, on an ordered topic, is one of an unordered topic.
func TestNoNumber(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.broker.DuplicateWindow = -1
		b.publish("k", 1)
		for range 2 {
			b.send(bubbleEvent("k", 7, 0))
		}
		long := bubbleEvent("long", 8, 9)
		long.Key = strings.Repeat("k", 256)
		b.send(long)
		b.publish("k", 2)
		b.want("k", 1, 7, 2)
		b.want(long.Key, 8)
	})
}
