package rollout

import (
	"context"
	"errors"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
)

// A lease is held by the candidate whose name is in the store. It writes its name at intervals. If
// it has not done so for the life of the lease, by the clock of another candidate, that one takes
// over. No clocks are compared. Two may believe for a moment that they lead, which does no harm:
// what they write depends on the revision of what they read.
type lease struct {
	store kv.Store
	name  string // of the candidate, unique
	life  time.Duration
	note  func(ctx context.Context, err error) // gets the results of calls to the store
}

// campaign calls run while the lease is held, until ctx ends. run's context ends with the lease.
func (l *lease) campaign(ctx context.Context, run func(context.Context)) {
	var seen kv.Entry
	var since time.Time
	for ctx.Err() == nil {
		e, err := l.get(ctx)
		if err == nil {
			if e.Revision != seen.Revision || since.IsZero() {
				seen, since = e, time.Now()
			}
			if len(e.Value) == 0 || time.Since(since) >= l.life {
				var revision uint64
				if revision, err = l.put(ctx, l.name, e.Revision); err == nil {
					l.hold(ctx, revision, run)
					since = time.Time{}
				}
			}
		}
		if errors.Is(err, kv.ErrConflict) {
			err = nil
		}
		if ctx.Err() == nil {
			l.note(ctx, err)
		}
		steady.Sleep(ctx, l.life/5)
	}
}

// hold renews the lease until ctx ends or another one has it.
func (l *lease) hold(ctx context.Context, revision uint64, run func(context.Context)) {
	leading, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run(leading)
	}()
	defer func() {
		cancel()
		<-ended
		if ctx.Err() != nil { // a stop: the next one need not wait
			_, _ = l.put(context.WithoutCancel(ctx), "", revision)
		}
	}()
	renewed := time.Now()
	for steady.Sleep(ctx, l.life/3) {
		next, err := l.put(ctx, l.name, revision)
		if errors.Is(err, kv.ErrConflict) {
			// Maybe a write of ours that seemed to have failed.
			e, getErr := l.get(ctx)
			if getErr == nil && string(e.Value) != l.name {
				return
			}
			next, err = e.Revision, getErr
		}
		if ctx.Err() != nil {
			return
		}
		l.note(ctx, err)
		switch {
		case err == nil:
			revision, renewed = next, time.Now()
		case time.Since(renewed) >= l.life*2/3:
			return
		}
	}
}

// get returns the entry of the lease, with revision 0 when there is none.
func (l *lease) get(ctx context.Context) (kv.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, l.life/3)
	defer cancel()
	e, err := l.store.Get(ctx, leaderKey)
	if errors.Is(err, kv.ErrNotFound) {
		return kv.Entry{}, nil
	}
	return e, err
}

func (l *lease) put(ctx context.Context, name string, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.life/3)
	defer cancel()
	return l.store.PutIf(ctx, leaderKey, []byte(name), revision)
}
