package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
)

// commandLimit bounds one use of Redis, with waiting for a connection and making it.
const commandLimit = 250 * time.Millisecond

// Waits between attempts to reach a Redis that is away. One that goes away again within calm of its
// return goes on with the longer waits.
const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
	calm      = 10 * time.Second
)

// maxUndone is how many keys are remembered that could not be deleted.
const maxUndone = 10_000

// A server makes sessions; see Session.
type server interface {
	Session(service string, limit time.Duration) Session
}

// A link is one service's connection to Redis, shared by its caches. While it has a session Redis
// is used; when it has none Redis is away, and only run asks.
type link struct {
	server  server
	service string
	setting string // that named the server
	limit   time.Duration
	log     *slog.Logger
	outage  steady.Outage

	session atomic.Pointer[Session]
	wake    chan struct{} // the session ended

	mu       sync.Mutex
	undone   map[string]struct{} // deletes that did not reach Redis; no session starts before they do
	notUntil time.Time           // no session starts before; set when undone would have grown too large
	keep     time.Duration       // after which nothing in Redis is older
	told     string              // the kind of reason that was last logged
	warned   bool                // that restarts go unnoticed
}

func newLink(to server, service, setting, url string, log *slog.Logger) *link {
	return &link{
		server: to, service: service, setting: setting, limit: commandLimit, log: log,
		outage: steady.Outage{What: "redis", Log: log, Attrs: []slog.Attr{slog.String("setting", setting), slog.String("url", redact.URL(url))}},
		wake:   make(chan struct{}, 1), undone: make(map[string]struct{}),
	}
}

// keeps says that a cache has values of that TTL.
func (l *link) keeps(ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = max(l.keep, ttl+loadLimit)
}

// use calls f with the session, unless Redis is away. An error of f ends the session.
func (l *link) use(f func(context.Context, Session) error) error {
	s := l.session.Load()
	if s == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.limit) // a caller who gives up says nothing about Redis
	defer cancel()
	err := f(ctx, *s)
	if err != nil {
		l.lost(s, err)
	}
	return err
}

// lost ends s; others may have ended it before.
func (l *link) lost(s *Session, err error) {
	if !l.session.CompareAndSwap(s, nil) {
		return
	}
	l.tell(err)
	_ = (*s).Close() // one of its connections has failed
	steady.Signal(l.wake)
}

// tell logs why Redis is away, once for each kind of reason: what it answers, or that it does not,
// which has many texts in one outage.
func (l *link) tell(err error) {
	kind := "no answer"
	if refused, ok := errors.AsType[interface {
		error
		RedisError() // marks what the server said
	}](err); ok {
		kind, _, _ = strings.Cut(refused.Error(), " ")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told != kind {
		l.told = kind
		l.outage.Lost(context.Background(), err)
	}
}

// delete removes keys, or remembers them.
func (l *link) delete(names []string) error {
	for {
		err := l.use(func(ctx context.Context, s Session) error { return s.Delete(ctx, names) })
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
	wait, back := steady.Backoff{First: firstWait, Max: maxWait}, time.Time{}
	for {
		for l.session.Load() == nil {
			if !steady.Sleep(ctx, wait.Next()) {
				return nil
			}
			if l.connect() == nil {
				back = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		if time.Since(back) > calm {
			wait.Reset()
		}
	}
}

// connect begins a session, after doing what was undone.
func (l *link) connect() error {
	s := l.server.Session(l.service, l.limit)
	err := l.begin(s)
	if err != nil {
		_ = s.Close()
		l.tell(err)
	}
	return err
}

func (l *link) begin(s Session) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*l.limit)
	defer cancel()
	restarts, err := s.Probe(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := time.Until(l.notUntil); wait > 0 {
		return fmt.Errorf("values that could not be deleted end in %v", wait)
	}
	for names := range slices.Chunk(slices.Collect(maps.Keys(l.undone)), 500) {
		if err := s.Delete(ctx, names); err != nil {
			return err
		}
		for _, name := range names {
			delete(l.undone, name)
		}
	}
	l.told = ""
	l.outage.Back(ctx)
	if !restarts && !l.warned {
		l.warned = true
		l.log.Warn("redis forbids INFO: after a restart with old data, deleted values can come back", "setting", l.setting)
	}
	l.session.Store(&s)
	return nil
}

// close ends the session for good.
func (l *link) close(context.Context) error {
	if s := l.session.Swap(nil); s != nil {
		return (*s).Close()
	}
	return nil
}
