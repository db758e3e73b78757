package cache

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// commandLimit bounds one use of Redis, with waiting for a connection and making it.
const commandLimit = 250 * time.Millisecond

// Waits between attempts to reach a Redis that is away, jittered. One that goes away
// again within calm of its return goes on with the longer waits.
const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
	calm      = 10 * time.Second
)

// maxUndone is how many keys are remembered that could not be deleted.
const maxUndone = 10_000

// A link is one service's connection to Redis, shared by its caches. While it has a
// session Redis is used; when it has none Redis is away, and only run asks.
type link struct {
	opts    redis.Options
	service string
	setting string // that named the server
	log     *slog.Logger
	limit   time.Duration // commandLimit

	session atomic.Pointer[session]
	wake    chan struct{} // the session ended

	mu       sync.Mutex
	undone   map[string]struct{} // deletes that did not reach Redis; no session starts before they do
	notUntil time.Time           // no session starts before; set when undone would have grown too large
	keep     time.Duration       // after which nothing in Redis is older
	told     string              // the reason that was last logged; "" while there is a session
	warned   bool                // that INFO is forbidden
}

func newLink(opts *redis.Options, service, setting string, log *slog.Logger) *link {
	return &link{
		opts: *opts, service: service, setting: setting, log: log, limit: commandLimit,
		wake: make(chan struct{}, 1), undone: make(map[string]struct{}),
	}
}

// keeps says that a cache has values of that TTL.
func (l *link) keeps(ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = max(l.keep, ttl+loadLimit)
}

// use calls f with the session, unless Redis is away. An error of f ends the session.
func (l *link) use(f func(context.Context, *session) error) error {
	s := l.session.Load()
	if s == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.limit) // a caller who gives up says nothing about Redis
	defer cancel()
	err := f(ctx, s)
	if err != nil {
		l.lost(s, err)
	}
	return err
}

// lost ends s; others may have ended it before.
func (l *link) lost(s *session, err error) {
	if !l.session.CompareAndSwap(s, nil) {
		return
	}
	l.tell(err)
	_ = s.client.Close() // one of its connections has failed
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tell logs why Redis is away, once for each reason.
func (l *link) tell(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := reason(err); l.told != r {
		l.told = r
		l.log.Warn("redis is away, the cache loads everything", "setting", l.setting, "address", l.opts.Addr, "error", explain(err, l.setting))
	}
}

// delete removes keys, or remembers them.
func (l *link) delete(names []string) error {
	for {
		err := l.use(func(ctx context.Context, s *session) error { return s.delete(ctx, names) })
		if err == nil {
			return nil
		}
		l.mu.Lock()
		if l.session.Load() == nil {
			l.remember(names)
			l.mu.Unlock()
			return fmt.Errorf("%w (%s)", err, l.setting)
		}
		l.mu.Unlock() // a new session has begun meanwhile
	}
}

func (l *link) remember(names []string) {
	for _, name := range names {
		l.undone[name] = struct{}{}
	}
	if len(l.undone) > maxUndone {
		clear(l.undone)
		l.notUntil = time.Now().Add(l.keep)
	}
}

// run begins a session whenever there is none, until ctx ends.
func (l *link) run(ctx context.Context) error {
	wait, back := firstWait, time.Time{}
	for {
		for l.session.Load() == nil {
			if !sleep(ctx, wait/2+rand.N(wait/2)) {
				return nil
			}
			if l.connect() == nil {
				back = time.Now()
			}
			wait = min(2*wait, maxWait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		if time.Since(back) > calm {
			wait = firstWait
		}
	}
}

// connect begins a session, after doing what was undone.
func (l *link) connect() error {
	s := newSession(l.opts, l.service, l.limit)
	err := l.begin(s)
	if err != nil {
		_ = s.client.Close()
		l.tell(err)
	}
	return err
}

func (l *link) begin(s *session) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*l.limit)
	defer cancel()
	if err := s.probe(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := time.Until(l.notUntil); wait > 0 {
		return fmt.Errorf("values that could not be deleted end in %v", wait)
	}
	for names := range slices.Chunk(slices.Collect(maps.Keys(l.undone)), 500) {
		if err := s.delete(ctx, names); err != nil {
			return err
		}
		for _, name := range names {
			delete(l.undone, name)
		}
	}
	if l.told != "" {
		l.told = ""
		l.log.Info("redis is back", "setting", l.setting, "address", l.opts.Addr)
	}
	if s.run == noRun && !l.warned {
		l.warned = true
		l.log.Warn("redis forbids INFO: after its restart with old data, values can be seen that were deleted", "setting", l.setting)
	}
	l.session.Store(s)
	return nil
}

// close ends the session for good.
func (l *link) close(context.Context) error {
	if s := l.session.Swap(nil); s != nil {
		return s.client.Close()
	}
	return nil
}

// sleep waits for d and reports whether ctx was still going then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
