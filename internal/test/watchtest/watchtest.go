// Package watchtest follows a watch, for the conformance suites of what can be watched.
package watchtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// A Watcher follows lists of T in the background.
type Watcher[T any] struct {
	T       *testing.T
	Timeout time.Duration     // how long a change may take
	Name    string            // of what is watched
	Same    func(a, b T) bool // compares two members
	Show    func(...T) string // a list for people
	Order   func(a, b T) int  // of the members of a list
	Seen    func(list []T)    // gets each list before it is queued; nil is nothing
	Lists   chan []T          // the lists that nobody has taken yet
	Stop    func() error      // ends the watch and returns what it returned
	Ended   chan struct{}     // closed when the watch has returned
}

// Start starts a watch, which ends with the test at the latest.
func (w *Watcher[T]) Start(watch func(ctx context.Context, name string, update func([]T)) error) *Watcher[T] {
	w.Lists, w.Ended = make(chan []T, 1000), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var failed error
	var busy sync.Mutex
	go func() {
		defer close(w.Ended)
		failed = watch(ctx, w.Name, func(list []T) {
			if !busy.TryLock() {
				w.T.Errorf("Watch(%q) calls update concurrently", w.Name)
				return
			}
			defer busy.Unlock()
			if !slices.IsSortedFunc(list, w.Order) {
				w.T.Errorf("Watch(%q) told %s, which is not in order", w.Name, w.Show(list...))
			}
			if w.Seen != nil {
				w.Seen(list)
			}
			w.Lists <- list
		})
	}()
	w.Stop = sync.OnceValue(func() error {
		cancel()
		select {
		case <-w.Ended:
			return failed
		case <-time.After(w.Timeout):
			return errors.New("the watch did not return when its context ended")
		}
	})
	w.T.Cleanup(func() {
		if err := w.Stop(); err != nil {
			w.T.Errorf("Watch(%q): %v", w.Name, err)
		}
	})
	return w
}

// Next returns the next list.
func (w *Watcher[T]) Next() []T {
	w.T.Helper()
	return w.await("any list", func([]T) bool { return true })
}

// Until waits for a list of exactly these members, in their order.
func (w *Watcher[T]) Until(want ...T) []T {
	w.T.Helper()
	want = slices.SortedFunc(slices.Values(want), w.Order)
	return w.await(w.Show(want...), func(list []T) bool { return slices.EqualFunc(list, want, w.Same) })
}

func (w *Watcher[T]) await(want string, good func([]T) bool) []T {
	w.T.Helper()
	expired := time.After(w.Timeout)
	var last []T
	for {
		select {
		case last = <-w.Lists:
			if good(last) {
				return last
			}
		case <-w.Ended:
			w.T.Fatalf("Watch has returned: %v", w.Stop())
		case <-expired:
			w.T.Fatalf("last list is %s, want %s within %v", w.Show(last...), want, w.Timeout)
		}
	}
}
