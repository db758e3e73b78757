package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// errGone is for a load that ended its goroutine, as testing's FailNow does.
var errGone = errors.New("cache: load ended its goroutine")

// loads are those of one cache that run now. Whoever needs the value of a key joins the load that
// runs under the lease that they were given: another lease says that the key was deleted in
// between, and that the load may have read the old value.
type loads struct {
	stop context.Context // ends all loads

	mu      sync.Mutex
	running map[string]*load
}

// A load is one call, and its result.
type load struct {
	lease   string
	callers int // that share it
	done    chan struct{}
	value   []byte
	err     error
}

func newLoads(stop context.Context) *loads {
	return &loads{stop: stop, running: make(map[string]*load)}
}

// do joins the load of key under lease, or starts one.
func (l *loads) do(ctx context.Context, key, lease string, get func(context.Context) ([]byte, error)) ([]byte, error) {
	l.mu.Lock()
	one := l.running[key]
	if one == nil || one.lease != lease {
		one = &load{lease: lease, done: make(chan struct{})}
		l.running[key] = one
		go l.run(context.WithoutCancel(ctx), key, one, get)
	}
	one.callers++
	l.mu.Unlock()
	select {
	case <-one.done:
		return one.value, one.err
	case <-ctx.Done():
		return nil, fmt.Errorf("cache: load of %q: %w", key, ctx.Err())
	}
}

func (l *loads) run(ctx context.Context, key string, one *load, get func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	defer context.AfterFunc(l.stop, cancel)()
	one.err = errGone
	defer func() {
		if p := recover(); p != nil {
			one.err = fmt.Errorf("cache: load of %q panicked: %v\n%s", key, p, debug.Stack())
		}
		l.mu.Lock()
		if l.running[key] == one {
			delete(l.running, key)
		}
		l.mu.Unlock()
		close(one.done)
	}()
	one.value, one.err = get(ctx)
}

// forget lets those who come from now on start loads of their own.
func (l *loads) forget(keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.running, key)
	}
}
