package kvtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/kv"
)

func testWatchEmpty(t *testing.T, h Harness, s kv.Store, prefix string) {
	w := watch(t, h, s, prefix, nil)
	if list := w.Next(); len(list) != 0 {
		t.Errorf("the first list of an empty prefix is %s, want none, told at once", show(list...))
	}
	a := put(t, s, prefix+"a", "1")
	w.Until(a)
	remove(t, s, a.Key)
	w.Until() // told, when it is empty again
}

func testWatch(t *testing.T, h Harness, s kv.Store, prefix string) {
	b := put(t, s, prefix+"b", "1")
	d := put(t, s, prefix+"d/e", "2")
	remove(t, s, put(t, s, prefix+"gone", "x").Key)
	w := watch(t, h, s, prefix, nil)
	if first := w.Next(); !slices.EqualFunc(first, []kv.Entry{b, d}, kv.Entry.Equal) {
		t.Errorf("the first list is %s, want %s", show(first...), show(b, d))
	}
	a := put(t, s, prefix+"a", "3") // ordered by key, not by time
	w.Until(a, b, d)
	b = put(t, s, prefix+"b", "4")
	w.Until(a, b, d)
	b = put(t, s, prefix+"b", "4") // the same bytes are a change too
	w.Until(a, b, d)
	revision, err := s.PutIf(t.Context(), b.Key, nil, b.Revision)
	if err != nil {
		t.Fatalf("PutIf: %v", err)
	}
	b.Value, b.Revision = nil, revision
	w.Until(a, b, d)
	remove(t, s, a.Key)
	w.Until(b, d)
	a = put(t, s, a.Key, "5")
	w.Until(a, b, d)
	watch(t, h, s, prefix, nil).Until(a, b, d) // a second one hears the same
}

func testWatchEnds(t *testing.T, h Harness, s kv.Store, prefix string) {
	w := watch(t, h, s, prefix, nil)
	w.Next()
	if err := w.Stop(); err != nil {
		t.Errorf("Watch returned %v when its context ended, want nil", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Watch(ended, prefix, func([]kv.Entry) {}); err != nil {
		t.Errorf("Watch with an ended context returned %v, want nil", err)
	}
	// From within update, too; and it is the last call.
	inside, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.Watch(inside, prefix, func([]kv.Entry) { cancel() }); err != nil {
		t.Errorf("Watch returned %v when update ended its context, want nil", err)
	}
	a := put(t, s, prefix+"a", "1")
	watch(t, h, s, prefix, nil).Until(a) // by now it would have been told
	select {
	case list := <-w.Lists:
		t.Errorf("update was called with %s after Watch had returned", show(list...))
	default:
	}
}

func testPrefix(t *testing.T, h Harness, s kv.Store, prefix string) {
	entries := map[string]kv.Entry{}
	for _, key := range []string{"a/b", "a/bc", "a/b/c", "a/c", "a", "ab/c", "A/b", "a.b/c"} {
		entries[key] = put(t, s, prefix+key, "1")
	}
	for p, keys := range map[string][]string{
		"a/b":  {"a/b", "a/b/c", "a/bc"}, // bytes, not segments
		"a/b/": {"a/b/c"},
		"a/":   {"a/b", "a/bc", "a/b/c", "a/c"},
		"a":    {"a/b", "a/bc", "a/b/c", "a/c", "a", "ab/c", "a.b/c"},
		"a.":   {"a.b/c"},
		"A":    {"A/b"},
		"b":    nil,
		"a/b.": nil,
	} {
		var want []kv.Entry
		for _, key := range keys {
			want = append(want, entries[key])
		}
		watch(t, h, s, prefix+p, nil).Until(want...)
	}
	// Without a prefix everything is told; other tests may write at the same time.
	missing := map[string]bool{}
	w := watch(t, h, s, "", func(list []kv.Entry) {
		for key := range entries {
			if !slices.ContainsFunc(list, func(e kv.Entry) bool { return e.Key == prefix+key }) {
				missing[key] = true
			}
		}
	})
	w.Next()
	if err := w.Stop(); err != nil || len(missing) > 0 {
		t.Errorf("Watch(\"\"): %v; it did not tell %v", err, missing)
	}
}

func testNotTwice(t *testing.T, h Harness, s kv.Store, prefix string) {
	var last []kv.Entry
	first := true
	w := watch(t, h, s, prefix+"a/", func(list []kv.Entry) {
		if !first && slices.EqualFunc(list, last, kv.Entry.Equal) {
			t.Errorf("the list %s was told twice in a row", show(list...))
		}
		first, last = false, slices.Clone(list)
	})
	w.Next()
	other := watch(t, h, s, prefix+"b/", nil)
	for i := range 10 {
		other.Until(put(t, s, prefix+"b/x", fmt.Sprint(i))) // not w's, but it may have been woken
		remove(t, s, prefix+"a/never")
	}
	a := put(t, s, prefix+"a/x", "1")
	w.Until(a)
	put(t, s, prefix+"b/x", "last")
	w.Until(a, put(t, s, prefix+"a/y", "2"))
}

func testLastChange(t *testing.T, h Harness, s kv.Store, prefix string) {
	var watchers []*watcher
	for range 4 {
		watchers = append(watchers, watch(t, h, s, prefix, nil))
	}
	var wg sync.WaitGroup
	want := make([]kv.Entry, 8)
	for i := range want {
		key := prefix + fmt.Sprint("k", i)
		wg.Go(func() {
			for n := range 5 { // the last word of each is that it is there
				revision, err := s.Put(t.Context(), key, fmt.Append(nil, n))
				if err == nil && n < 4 {
					err = s.Delete(t.Context(), key)
				}
				if err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
				want[i] = kv.Entry{Key: key, Value: fmt.Append(nil, n), Revision: revision}
			}
		})
	}
	wg.Wait()
	for _, w := range watchers {
		w.Until(slices.Clone(want)...)
	}
}

// testSlow changes much while update is busy.
func testSlow(t *testing.T, h Harness, s kv.Store, prefix string) {
	busy, release := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(busy); <-release })
	w := watch(t, h, s, prefix, func([]kv.Entry) { begin() })
	select {
	case <-busy:
	case <-w.Ended:
		t.Fatalf("Watch has returned: %v", w.Stop())
	case <-time.After(h.Timeout):
		t.Fatalf("Watch told nothing within %v", h.Timeout)
	}
	var a kv.Entry
	for i := range 300 {
		a = put(t, s, prefix+"a", fmt.Sprint(i))
	}
	b := put(t, s, prefix+"b", "last")
	close(release)
	w.Until(a, b)
}
