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

// flights are the loads of one cache that run now. Whoever needs the value of a key
// joins the load that runs under the lease that they were given: another lease says that
// the key was deleted in between, and that the load may have read what was before.
type flights struct {
	stop context.Context // ends all loads

	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	lease   string
	callers int // that share it
	done    chan struct{}
	value   []byte
	err     error
}

func newFlights(stop context.Context) *flights {
	return &flights{stop: stop, running: make(map[string]*flight)}
}

// do joins the load of key under lease, or starts one.
func (f *flights) do(ctx context.Context, key, lease string, load func(context.Context) ([]byte, error)) ([]byte, error) {
	f.mu.Lock()
	fl := f.running[key]
	if fl == nil || fl.lease != lease {
		fl = &flight{lease: lease, done: make(chan struct{})}
		f.running[key] = fl
		go f.run(context.WithoutCancel(ctx), key, fl, load)
	}
	fl.callers++
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		return nil, fmt.Errorf("cache: load of %q: %w", key, ctx.Err())
	}
}

func (f *flights) run(ctx context.Context, key string, fl *flight, load func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	defer context.AfterFunc(f.stop, cancel)()
	fl.err = errGone
	defer func() {
		if p := recover(); p != nil {
			fl.err = fmt.Errorf("cache: load of %q panicked: %v\n%s", key, p, debug.Stack())
		}
		f.mu.Lock()
		if f.running[key] == fl {
			delete(f.running, key)
		}
		f.mu.Unlock()
		close(fl.done)
	}()
	fl.value, fl.err = load(ctx)
}

// forget lets those who come from now on start loads of their own.
func (f *flights) forget(keys ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		delete(f.running, key)
	}
}
