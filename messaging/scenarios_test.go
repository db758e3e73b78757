package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// TestScenario10Redelivery: what comes again is not applied again, whatever became of it: handled,
// set aside, parked or dropped.
func TestScenario10Redelivery(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.broker.DuplicateWindow = -1
		b.set(failing("k", 2))
		all := []int{1, 2, 3, 4}
		b.publish("k", all...)
		b.wait(5 * time.Second)
		b.want("k", 1)
		b.publish("k", all...)
		b.stop()
		b.start()
		b.publish("k", all...)
		b.wait(5 * time.Second)
		b.want("k", 1)
		letters := b.aside("k-2 retrying", "k-3 parked", "k-4 parked")
		if err := b.operate(outbox.DropDeadLetter, letters[2].ID); err != nil {
			b.Fatal(err)
		}
		b.publish("k", all...)
		b.set(failing("", 0))
		b.wait(2 * time.Minute)
		b.want("k", 1, 2, 3)
		b.publish("k", append(all, 5)...)
		b.want("k", 1, 2, 3, 5)
		b.aside()
	})
}

// TestScenario12Poison: each bad event of an unordered topic ends as a dead letter with its reason,
// and holds up no other.
func TestScenario12Poison(t *testing.T) {
	t.Parallel()
	inBubble(t, false, &SubscribeOptions{Timeout: time.Second}, func(b *bubble) {
		b.set(func(_ string, n int) error {
			switch n {
			case 1:
				return errNever
			case 2:
				panic("broken glass")
			}
			return nil
		})
		broken := bubbleEvent("k", 3, 0)
		broken.Data = []byte("{")
		other := bubbleEvent("k", 4, 0)
		other.Headers.Set(driver.HeaderType, "u")
		b.send(broken)
		b.send(other)
		b.publish("k", 1, 2)
		b.publish("other", 10)
		b.publish("k", 11)
		b.want("other", 10)
		b.wait(10 * time.Second)
		b.want("k", 11)
		b.aside("k-1 retrying", "k-2 retrying", "k-3 dead", "k-4 dead")
		b.wait(5 * time.Minute)
		for _, d := range b.aside("k-1 dead", "k-2 dead", "k-3 dead", "k-4 dead") {
			reason := map[string]string{"k-1": "never", "k-2": "broken glass\ngoroutine ", "k-3": "data: ", "k-4": "ce-type"}[d.Message.ID]
			attempts := map[string]int{"k-1": 11, "k-2": 11, "k-3": 1, "k-4": 1}[d.Message.ID]
			if !strings.Contains(d.Reason, reason) || d.Attempts != attempts || d.Message.Headers.Get(driver.HeaderTraceParent) == "" {
				b.Errorf("dead letter %s: got %d attempts, headers %v, reason %q; want %d attempts and %q", d.Message.ID, d.Attempts, d.Message.Headers, d.Reason, attempts, reason)
			}
			if took := d.LastAt.Sub(d.FirstAt); attempts > 1 && (took < 2*time.Minute || took > 3*time.Minute) {
				b.Errorf("dead letter %s: decided after %v, want about 2.5 min", d.Message.ID, took)
			}
		}
		b.count()
		if last := slices.Max(b.attempt); last != 11 {
			b.Errorf("last attempt: got %d, want 11", last)
		}
	})
}

// TestPoisonLeavesRoom: a failing key with more events than the subscription has room for does not
// stop the others; ordered or not.
func TestPoisonLeavesRoom(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			t.Parallel()
			inBubble(t, ordered, nil, func(b *bubble) {
				b.set(failing("bad", 1))
				const bad = 3 * minInFlight
				for n := range bad {
					seq := n + 1
					if !ordered {
						seq = 0
					}
					b.send(bubbleEvent("bad", n+1, seq))
				}
				for k := range 60 {
					b.publish(fmt.Sprint("good", k), 1)
				}
				b.wait(0)
				for k := range 60 {
					b.want(fmt.Sprint("good", k), 1)
				}
			})
		})
	}
}

// TestScenario13NothingIsAckedThatIsNowhere: while neither the effect nor the dead letter can be
// written the event stays, and is handled when the database is back.
func TestScenario13NothingIsAckedThatIsNowhere(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.set(failing("k", 1))
		if _, err := b.db.Exec(`CREATE TRIGGER full BEFORE INSERT ON kaptar_dead_letters BEGIN SELECT RAISE(ABORT, 'disk full'); END`); err != nil {
			b.Fatal(err)
		}
		b.publish("k", 1, 2)
		b.wait(10 * time.Minute) // many times the ack wait of the broker
		b.want("k")
		b.aside()
		b.stop()
		b.start()
		b.wait(time.Minute)
		b.want("k")
		if _, err := b.db.Exec(`DROP TRIGGER full`); err != nil {
			b.Fatal(err)
		}
		b.wait(time.Minute)
		if letters := b.aside("k-1 retrying", "k-2 parked"); len(letters) == 2 && !strings.Contains(letters[0].Reason, "never") {
			b.Errorf("reason: got %q", letters[0].Reason)
		}
		b.set(failing("", 0))
		b.wait(2 * time.Minute)
		b.want("k", 1, 2)
		b.aside()
	})
}

// TestScenario14Replay: replayed twice, while the key is parked, or edited, each event is applied
// once and in order.
func TestScenario14Replay(t *testing.T) {
	t.Parallel()
	inBubble(t, true, &SubscribeOptions{Retries: 1}, func(b *bubble) {
		b.set(failing("k", 1))
		b.publish("k", 1, 2, 3)
		b.wait(time.Minute)
		letters := b.aside("k-1 dead", "k-2 parked", "k-3 parked")
		if err := b.operate(outbox.ReplayDeadLetter, letters[1].ID); !errors.Is(err, outbox.ErrNotFirst) {
			b.Errorf("replay of a parked event: got %v, want ErrNotFirst", err)
		}
		if err := b.operate(outbox.ReplayDeadLetter, letters[0].ID); err != nil {
			b.Fatal(err)
		}
		b.wait(time.Minute)
		if again := b.aside("k-1 dead", "k-2 parked", "k-3 parked"); len(again) == 3 && again[0].Attempts != 1 {
			b.Errorf("attempts after the replay: got %d, want them anew", again[0].Attempts)
		}
		b.want("k")
		b.set(failing("", 0))
		for range 2 { // in one go, before the retrier sees it
			err := sqldb.InTx(b.Context(), b.db, func(ctx context.Context, tx *sql.Tx) error {
				return outbox.ReplayDeadLetter(ctx, tx, letters[0].ID)
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.wait(5 * time.Second)
		b.want("k", 1, 2, 3)
		b.publish("k", 4)
		b.want("k", 1, 2, 3, 4)
		b.aside()
		if err := b.operate(outbox.ReplayDeadLetter, letters[0].ID); !errors.Is(err, outbox.ErrNoDeadLetter) {
			b.Errorf("replay of what is handled: got %v, want ErrNoDeadLetter", err)
		}
		b.want("k", 1, 2, 3, 4)
	})
}

// TestCircuit: while all fails nothing is set aside, one try at a time asks whether it works again,
// and then all are handled.
func TestCircuit(t *testing.T) {
	t.Parallel()
	inBubble(t, true, nil, func(b *bubble) {
		b.set(func(string, int) error { return errNever })
		const keys = 30
		for k := range keys {
			b.send(bubbleEvent(fmt.Sprint(k), 1, 1))
		}
		b.wait(10 * time.Second)
		b.gauge(b.c.bus.metrics.circuit, 1)
		b.aside()
		before := b.count()
		b.wait(10 * time.Minute)
		if n := b.count() - before; n < 18 || n > 24 {
			b.Errorf("tries in 10 minutes with the circuit open: got %d, want one in 30 s", n)
		}
		b.aside()
		b.set(func(string, int) error { return nil })
		b.wait(time.Minute)
		for k := range keys {
			b.want(fmt.Sprint(k), 1)
		}
		b.gauge(b.c.bus.metrics.circuit, 0)
	})
}

// TestCircuitOpenedByRetries: while it is open, a retry that fails counts neither as handled nor as a
// failure.
func TestCircuitOpenedByRetries(t *testing.T) {
	t.Parallel()
	inBubble(t, false, &SubscribeOptions{Tries: 1, Retries: 5}, func(b *bubble) {
		b.set(func(string, int) error { return errNever })
		for _, key := range []string{"a", "b", "c"} {
			b.publish(key, 1)
		}
		b.wait(5 * time.Minute) // in which more retries fail than three events have
		b.gauge(b.c.bus.metrics.circuit, 1)
		b.aside("a-1 retrying", "b-1 retrying", "c-1 retrying")
		b.counted(handled, 0)
		b.stop()
		lease, err := sqldb.TryLease(b.Context(), b.db, retryLease)
		if err != nil || lease == nil {
			b.Fatal(lease, err)
		}
		stop, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
		defer cancel()
		reads := 0
		if err := b.c.retrier.lead(stop, lease, func() { reads++ }); err != nil && stop.Err() == nil || reads > 400 {
			b.Errorf("the table was read %d times in 10 minutes with the circuit open, %v; want every 2 s", reads, err)
		}
		lease.Release()
		b.start()
		b.set(func(string, int) error { return nil })
		b.wait(time.Minute)
		b.gauge(b.c.bus.metrics.circuit, 0)
		b.aside()
		b.counted(handled, 3)
	})
}

// TestStopInAPause: a stop does not wait for the pause before the next try.
func TestStopInAPause(t *testing.T) {
	t.Parallel()
	inBubble(t, false, &SubscribeOptions{Tries: 20}, func(b *bubble) {
		b.set(failing("k", 1))
		b.publish("k", 1)
		b.wait(30 * time.Second) // now the pauses are the longest, up to 5 s
		tries, begun := b.count(), time.Now()
		if b.stop(); time.Since(begun) != 0 || b.count() != tries || tries < 10 {
			b.Errorf("after %d tries the stop took %v and %d more, want none", tries, time.Since(begun), b.count()-tries)
		}
	})
}

// TestAutoAckNotAcknowledged: an event that could not be acknowledged comes again, so it is not
// handled now.
func TestAutoAckNotAcknowledged(t *testing.T) {
	t.Parallel()
	inBubble(t, false, nil, func(b *bubble) {
		calls := 0
		c := &consumer{bus: b.c.bus, topic: "t", opts: b.c.opts, running: make(chan struct{}, 1), autoAck: true}
		c.handle = func(context.Context, *driver.Delivery, func(context.Context, *sql.Tx) (outcome, error)) (outcome, error) {
			calls++
			return handled, nil
		}
		for i, err := range []error{errNever, nil} {
			w := &work{Delivery: &driver.Delivery{Message: bubbleEvent("k", 1, 0), Acker: acker{err: err}}}
			if how := c.process(b.Context(), w, func() int { return 0 }); how != done || calls != i {
				b.Errorf("acknowledgement %v: got progress %d and %d calls, want done and %d", err, how, calls, i)
			}
		}
		b.counted(dropped, 1)
		b.counted(handled, 1)
	})
}

// An acker fails to acknowledge with err.
type acker struct {
	driver.Acker

	err error
}

func (a acker) Ack(context.Context) error { return a.err }

// TestCircuitOfOneKey: a bad key alone does not open it, and permanent errors do not.
func TestCircuitOfOneKey(t *testing.T) {
	t.Parallel()
	inBubble(t, false, nil, func(b *bubble) {
		b.set(func(key string, _ int) error {
			switch key {
			case "a", "b":
				return errNever
			case "good":
				return nil
			}
			return Permanent(errNever)
		})
		for k := range 30 {
			b.publish(fmt.Sprint(k), 1)
		}
		b.publish("a", 1, 2, 3, 4, 5, 6)
		b.publish("b", 1, 2, 3, 4, 5, 6)
		b.publish("good", 1)
		b.wait(time.Minute)
		b.gauge(b.c.bus.metrics.circuit, 0)
		b.want("good", 1)
		if all, err := outbox.DeadLetters(b.Context(), b.db, nil); len(all) != 42 {
			b.Errorf("set aside: got %d, %v, want 42", len(all), err)
		}
	})
}
