package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

var topics = [2]string{"order.placed.v1", "log.v1"}

// ofBroker is an event for one of two brokers.
func ofBroker(which, n int) driver.Message {
	m := message(topics[which], n)
	m.Topic = topics[which]
	return m
}

// twoBrokers returns a relay to two brokers, of which each has its topic.
func twoBrokers(db *sql.DB) (*outbox.Relay, *[2]broker) {
	var all [2]broker
	r := outbox.NewRelay(db, func(ctx context.Context, batch []driver.Message) error {
		which := 0
		if batch[0].Topic == topics[1] {
			which = 1
		}
		return all[which].send(ctx, batch)
	}, &outbox.RelayOptions{Apart: [][]string{{topics[1], "another"}}}).BoundOften()
	return r, &all
}

// away makes a broker take nothing, or everything again.
func (b *broker) away(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = func([]driver.Message) error {
		if away {
			return errBoom
		}
		return nil
	}
}

// While one broker is away, whichever it is, the events for the other go out, and those that wait go
// out in their order when it is back. Each broker gets its own alone.
func TestBrokersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		const waiting = 1200 // more than two batches
		db := open(t, url)
		for away := range 2 {
			r, brokers := twoBrokers(db)
			stop := start(t, r)
			there := 1 - away
			brokers[away].away(true)
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) (err error) {
				for i := range waiting {
					err = errors.Join(err, outbox.Add(ctx, tx, ofBroker(away, i)))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				add(t, db, ofBroker(there, i))
				r.Wake()
				eventually(t, "the other one's are sent meanwhile", brokers[there].has(i+1))
			}
			brokers[away].away(false)
			eventually(t, "all are sent", func() bool { return brokers[away].has(waiting)() && count(t, db, "kaptar_outbox") == 0 })
			stop()
			for which := range brokers {
				for i, m := range brokers[which].all() {
					if want := ofBroker(which, i); m.ID != want.ID {
						t.Fatalf("number %d at broker %d is %s, want %s", i, which, m.ID, want.ID)
					}
				}
			}
		}
	})
}

// An event that is committed late is not passed over because those for another broker have higher ids
// and were seen.
func TestBoundOfEachBroker(t *testing.T) {
	t.Parallel()
	db, _ := postgres(t)
	late := begin(t, db, ofBroker(1, 0))
	r, brokers := twoBrokers(db)
	brokers[0].away(true)
	start(t, r)
	for i := range 20 {
		add(t, db, ofBroker(0, i))
		add(t, db, ofBroker(1, i+2))
		r.Wake()
		eventually(t, "others are sent meanwhile", brokers[1].has(i+1))
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	add(t, db, ofBroker(1, 1))
	r.Wake()
	eventually(t, "all are sent", brokers[1].has(22))
	if all := brokers[1].all(); all[20].ID != ofBroker(1, 0).ID || all[21].ID != ofBroker(1, 1).ID {
		t.Errorf("the last two are %s and %s, want the one that was committed late and the one behind it", all[20].ID, all[21].ID)
	}
}

// What waits for one broker is not gone through each time for the other, which has nothing. Pages are
// counted.
func TestBacklogOfAnotherBroker(t *testing.T) {
	t.Parallel()
	db, relayed := postgres(t)
	const rows = 20_000
	r, brokers := twoBrokers(relayed)
	brokers[0].away(true)
	stop := start(t, r.Poll(5*time.Millisecond))
	add(t, db, ofBroker(1, 0))
	eventually(t, "one is sent", brokers[1].has(1))
	fill(t, db, rows)
	reads := func() int {
		return number(t, db, "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'kaptar_outbox'")
	}
	before, begun := blocks(t, db), reads()
	eventually(t, "it is read again and again", func() bool { return reads() > begun+300 }) // the first few look for its bound
	stop()
	if err := relayed.Close(); err != nil { // sessions hand in their figures when they end
		t.Fatal(err)
	}
	var n int
	eventually(t, "the statistics have all of it", func() bool { before := n; n = blocks(t, db); return n == before })
	const most = 150 // all of them are on 800
	if perRead := (blocks(t, db) - before) / (reads() - begun); perRead > most {
		t.Errorf("a read asks for %d pages beside %d rows for another broker, want at most %d", perRead, rows, most)
	} else {
		t.Logf("%d pages a read", perRead)
	}
}
