package messaging

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	// watchEvery is how often a replay is looked at.
	watchEvery = 200 * time.Millisecond
	// nobodyAfter is how long nothing happens until it is looked whether anybody is there to do it, and
	// stuckAfter how long until the command waits no longer.
	nobodyAfter = 3 * time.Second
	stuckAfter  = 30 * time.Second
)

// A tally is what has become of a replay.
type tally struct{ done, failed, left int }

func (t tally) String() string {
	return fmt.Sprintf("%d succeeded, %d failed again, %d left", t.done, t.failed, t.left)
}

// watch waits until all of ids, the last of which is due at the time until, have been tried, and says
// what came of them.
func (o *operator) watch(ctx context.Context, call *kaptar.Call, ids []int64, until time.Time) error {
	terminal := cli.IsTerminal(call.Stdout)
	var now, last tally
	for quiet := time.Now(); ; {
		failures, tallied, err := o.tally(ctx, ids)
		if err != nil {
			return err
		}
		if now = tallied; now != last {
			last, quiet = now, time.Now()
		}
		if terminal {
			fmt.Fprintf(call.Stdout, "\r\x1b[K%s", now)
		}
		silent := time.Since(quiet)
		if time.Now().Before(until) { // the last ones are not due
			silent = min(silent, stuckAfter-1)
		}
		nobody := silent > nobodyAfter && o.nobody(ctx)
		if now.left == 0 || nobody || silent > stuckAfter || !steady.Sleep(ctx, watchEvery) {
			if terminal {
				fmt.Fprint(call.Stdout, "\r\x1b[K")
			}
			return o.told(call, now, failures, nobody)
		}
	}
}

// told says how a replay ended.
func (o *operator) told(call *kaptar.Call, t tally, failures []outbox.DeadLetter, nobody bool) error {
	name := o.bus.app.Name()
	fmt.Fprintf(call.Stdout, "%s.\n", t)
	for i := range failures[:min(len(failures), 10)] {
		d := &failures[i]
		reason, _, _ := strings.Cut(d.Reason, "\n") // the command show has the stack too
		fmt.Fprintf(call.Stdout, "  %d is %s: %s\n", d.ID, d.State, redact.Lines(reason))
	}
	switch {
	case nobody:
		fmt.Fprintf(call.Stderr, "No process of %s is there to try them. They stay marked: start the service, and it does.\n", name)
	case t.left > 0:
		fmt.Fprintf(call.Stderr, "They stay marked, and %s goes on by itself. If nothing happens, see %s events list %[1]s and the service's log.\n",
			name, cli.Program())
	case t.failed == 0:
		return nil
	}
	return cli.ExitError(cli.Failed)
}

// tally looks what has become of ids, and returns those that failed again.
func (o *operator) tally(ctx context.Context, ids []int64) (failures []outbox.DeadLetter, t tally, err error) {
	t.done = len(ids)
	for some := range slices.Chunk(ids, mostNamed) {
		all, err := outbox.DeadLetters(ctx, o.db, &outbox.Filter{IDs: some, WithoutData: true})
		if err != nil {
			return nil, t, fmt.Errorf("messaging: %s: %w", o.bus.app.Name(), err)
		}
		t.done -= len(all)
		for i := range all {
			if d := &all[i]; d.State == outbox.Retrying && d.Retries == 0 {
				t.left++
			} else {
				t.failed++
				failures = append(failures, *d)
			}
		}
	}
	return failures, t, nil
}

// nobody reports whether no process of the service tries dead letters again.
func (o *operator) nobody(ctx context.Context) bool {
	lease, err := sqldb.TryLease(ctx, o.db, retryLease)
	if err != nil || lease == nil {
		return false
	}
	lease.Release()
	return true
}
