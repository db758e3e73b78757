// Package kvtest checks that a store keeps the promises of package kv.
// The author of a driver calls Run from a test of the driver's own.
package kvtest

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/watchtest"
	"github.com/kaptar/kaptar/kv"
)

// Harness says what to test.
type Harness struct {
	// Open returns a store in which no other test uses the keys below the prefixes that Prefix
	// gives; required. It is called in each test. What it opens it closes in a cleanup of t.
	Open func(t *testing.T) kv.Store
	// Prefix returns a prefix, with a "/" at its end, that no other test uses. nil gives "kvtest/",
	// for stores that are new at each Open.
	Prefix func(t *testing.T) string
	// Timeout is how long a change may take to reach a watcher; default 30 s.
	Timeout time.Duration
}

// Run runs every test as a subtest of t.
func Run(t *testing.T, h Harness) {
	h.Timeout = cmp.Or(h.Timeout, 30*time.Second)
	if h.Prefix == nil {
		h.Prefix = func(*testing.T) string { return "kvtest/" }
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness, kv.Store, string)
	}{
		{"MissingKeyIsNotFound", testMissing},
		{"PutIsRead", testPut},
		{"EveryWriteHasItsRevision", testRevisions},
		{"KeysAreApart", testKeys},
		{"PutIfComparesTheRevision", testPutIf},
		{"OldRevisionsNeverComeBack", testOldRevisions},
		{"DeleteTwiceIsFine", testDelete},
		{"InvalidIsRefused", testInvalid},
		{"LargestIsTaken", testLargest},
		{"ValuesBelongToTheCaller", testOwnership},
		{"OneOfManyWritersWins", testRace},
		{"ConcurrentUpdatesAllCount", testCounter},
		{"WatchTellsAnEmptyList", testWatchEmpty},
		{"WatchTellsEveryKindOfChange", testWatch},
		{"WatchEndsWithItsContext", testWatchEnds},
		{"PrefixesAreApart", testPrefix},
		{"NoListIsToldTwice", testNotTwice},
		{"EveryWatcherHearsOfTheLastChange", testLastChange},
		{"SlowWatcherHearsOfTheLastChange", testSlow},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, h, h.Open(t), h.Prefix(t))
		})
	}
}

func put(t *testing.T, s kv.Store, key, value string) kv.Entry {
	t.Helper()
	revision, err := s.Put(t.Context(), key, []byte(value))
	if err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
	if revision == 0 {
		t.Errorf("Put(%s) returned revision 0, which is that of a key that does not exist", key)
	}
	return kv.Entry{Key: key, Value: []byte(value), Revision: revision}
}

func remove(t *testing.T, s kv.Store, key string) {
	t.Helper()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatalf("Delete(%s): %v", key, err)
	}
}

// expect reads a key and compares.
func expect(t *testing.T, s kv.Store, want kv.Entry) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Key)
	if err != nil {
		t.Errorf("Get(%s): %v", want.Key, err)
	} else if !got.Equal(want) {
		t.Errorf("Get(%s) = %s, want %s", want.Key, show(got), show(want))
	}
}

func expectMissing(t *testing.T, s kv.Store, key string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("Get(%s) = %s, %v, want ErrNotFound", key, show(got), err)
	}
}

func show(list ...kv.Entry) string {
	var text strings.Builder
	for _, e := range list {
		fmt.Fprintf(&text, " %s@%d=%.40q", e.Key, e.Revision, e.Value)
	}
	return "[" + text.String() + " ]"
}

type watcher = watchtest.Watcher[kv.Entry]

// watch follows a prefix; each list goes through seen, which may be nil, before it is queued.
func watch(t *testing.T, h Harness, s kv.Store, prefix string, seen func([]kv.Entry)) *watcher {
	t.Helper()
	byKey := func(a, b kv.Entry) int { return strings.Compare(a.Key, b.Key) }
	w := &watcher{T: t, Timeout: h.Timeout, Name: prefix, Same: kv.Entry.Equal, Show: show, Order: byKey, Seen: seen}
	return w.Start(s.Watch)
}
