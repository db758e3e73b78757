package messaging

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

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

func (c *letters) replayCommand() *cobra.Command {
	cmd := c.many("replay", "Have them tried again by the service's processes, and wait for what comes of it", c.replay)
	cmd.Flags().IntVar(&c.rate, "rate", replayRate, fmt.Sprintf("at most so many in a second, up to %d", replayRate))
	check := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.rate < 1 || c.rate > replayRate {
			return cli.Usagef("--rate %d: expected 1 to %d a second", c.rate, replayRate)
		}
		return check(cmd, args)
	}
	return cmd
}

func (c *letters) replay(ctx context.Context, o *operator, sel selection) error {
	begin := time.Now()
	for some := range slices.Chunk(sel.ids, mostNamed) {
		n, err := o.replay(ctx, selection{some, sel.state}, c.rate, begin, c.by)
		if err != nil {
			return err
		}
		begin = begin.Add(time.Duration(n) * time.Second / time.Duration(c.rate))
	}
	return c.watch(ctx, o, sel.ids, begin)
}

// A tally is what has become of a replay.
type tally struct{ done, failed, left int }

func (t tally) String() string {
	return fmt.Sprintf("%d succeeded, %d failed again, %d left", t.done, t.failed, t.left)
}

// watch waits until all of ids, the last of which is due at the time until, have been tried, and says
// what came of them.
func (c *letters) watch(ctx context.Context, o *operator, ids []int64, until time.Time) error {
	terminal := cli.IsTerminal(c.Stdout)
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
			fmt.Fprintf(c.Stdout, "\r\x1b[K%s", now)
		}
		silent := time.Since(quiet)
		if time.Now().Before(until) { // the last ones are not due
			silent = min(silent, stuckAfter-1)
		}
		nobody := silent > nobodyAfter && o.nobody(ctx)
		if now.left == 0 || nobody || silent > stuckAfter || !steady.Sleep(ctx, watchEvery) {
			if terminal {
				fmt.Fprint(c.Stdout, "\r\x1b[K")
			}
			return c.told(o, now, failures, nobody)
		}
	}
}

// told says how a replay ended.
func (c *letters) told(o *operator, t tally, failures []outbox.DeadLetter, nobody bool) error {
	name := o.bus.app.Name()
	fmt.Fprintf(c.Stdout, "%s.\n", t)
	for i := range failures[:min(len(failures), 10)] {
		d := &failures[i]
		fmt.Fprintf(c.Stdout, "  %d is %s: %s\n", d.ID, d.State, redact.Lines(d.Reason))
	}
	switch {
	case nobody:
		fmt.Fprintf(c.Stderr, "No process of %s is there to try them. They stay marked: start the service, and it does.\n", name)
	case t.left > 0:
		fmt.Fprintf(c.Stderr, "They stay marked, and %s goes on by itself. If nothing happens, see %s events list %[1]s and the service's log.\n",
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
