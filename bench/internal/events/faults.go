package events

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

var errFault = errors.New("a fault of the benchmark")

// Faults make the first try of each event fail, in a handler's transaction or after its commit.
type Faults struct {
	committed bool
	seen      sync.Map // by ID
	tries     atomic.Int64
}

// NewFaults returns faults after the commit, or before it.
func NewFaults(committed bool) *Faults { return &Faults{committed: committed} }

// Fail returns an error for the first try of an event at the place that the faults are for. nil
// faults never do.
func (f *Faults) Fail(id string, committed bool) error {
	if f == nil {
		return nil
	}
	f.tries.Add(1)
	if f.committed != committed {
		return nil
	}
	if _, again := f.seen.LoadOrStore(id, true); again {
		return nil
	}
	return errFault
}

// around lets a try fail after its commit.
func (f *Faults) around(next messaging.Handler) messaging.Handler {
	return func(ctx context.Context, d *driver.Delivery) error {
		if err := next(ctx, d); err != nil {
			return err
		}
		return f.Fail(d.ID, true)
	}
}

// Effects sends n events through a stack with faults, until nothing has been tried for 3 s, and
// returns the effects that there are, and of how many events.
func Effects(ctx context.Context, on *Servers, stack *Stack, f *Faults, n int) (rows, different int, err error) {
	env, err := on.env(ctx, stack, false, n)
	if err != nil {
		return 0, 0, err
	}
	running, err := stack.Open(ctx, env)
	if err != nil {
		return 0, 0, err
	}
	if err := running.Relay(ctx, 0, n); err != nil {
		return 0, 0, errors.Join(err, running.Close())
	}
	for tries, quiet := f.tries.Load(), time.Now(); time.Since(quiet) < 3*time.Second && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if now := f.tries.Load(); now != tries {
			tries, quiet = now, time.Now()
		}
	}
	if err := running.Close(); err != nil {
		return 0, 0, err
	}
	return count(ctx, env.Handle, "bench_effects")
}

// count returns the rows of a table and how many different events they are of.
func count(ctx context.Context, url, table string) (rows, different int, err error) {
	db, err := sqldb.Open(ctx, url)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT n) FROM `+table).Scan(&rows, &different)
	return rows, different, err
}
