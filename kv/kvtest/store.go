package kvtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/kv"
)

func testMissing(t *testing.T, _ Harness, s kv.Store, prefix string) {
	expectMissing(t, s, prefix+"a")
	put(t, s, prefix+"a/b", "1") // the beginning of a key is none
	expectMissing(t, s, prefix+"a")
	if _, err := s.Get(t.Context(), prefix+"a"); err == nil || !strings.Contains(err.Error(), prefix+"a") {
		t.Errorf("Get of a missing key: %v, want the key in the text", err)
	}
}

func testPut(t *testing.T, _ Harness, s kv.Store, prefix string) {
	var every []byte
	for i := range 256 {
		every = append(every, byte(i))
	}
	for i, value := range []string{"1", "", "{\"weight\": 5}\n", "méz", string(every)} {
		key := prefix + fmt.Sprint("k", i)
		put(t, s, key, "before")
		expect(t, s, put(t, s, key, value))
	}
}

func testRevisions(t *testing.T, _ Harness, s kv.Store, prefix string) {
	seen := map[uint64]bool{}
	for _, value := range []string{"1", "2", "2", "2", "1"} { // also of the same bytes
		e := put(t, s, prefix+"a", value)
		if seen[e.Revision] {
			t.Errorf("revision %d came back with the value %q", e.Revision, value)
		}
		seen[e.Revision] = true
		put(t, s, prefix+"b", "other") // which is none of a's business
		expect(t, s, e)
	}
	e := put(t, s, prefix+"a", "3")
	again, err := s.PutIf(t.Context(), e.Key, e.Value, e.Revision)
	if err != nil || again == e.Revision || seen[again] {
		t.Errorf("PutIf of the same bytes = %d, %v, want a new revision", again, err)
	}
}

func testKeys(t *testing.T, _ Harness, s kv.Store, prefix string) {
	var all []kv.Entry
	for _, key := range []string{"a", "A", "a/b", "a/B", "a.b", "a-b", "a_b", "ab", "a/b/c", "0", "-", "_", "a/-_1.x", "Z9", "a/b.c/d"} {
		all = append(all, put(t, s, prefix+key, "value of "+key))
	}
	for _, e := range all {
		expect(t, s, e)
	}
	remove(t, s, prefix+"a/b")
	for _, e := range all {
		if e.Key == prefix+"a/b" {
			expectMissing(t, s, e.Key)
		} else {
			expect(t, s, e)
		}
	}
}

func testPutIf(t *testing.T, _ Harness, s kv.Store, prefix string) {
	ctx, key := t.Context(), prefix+"a"
	conflict := func(what string, revision uint64) {
		t.Helper()
		got, err := s.PutIf(ctx, key, []byte("wrong"), revision)
		if !errors.Is(err, kv.ErrConflict) || !strings.Contains(err.Error(), key) {
			t.Errorf("PutIf with %s = %d, %v, want ErrConflict and the key in the text", what, got, err)
		}
	}
	conflict("a revision of a key that does not exist", 7)
	expectMissing(t, s, key)
	first, err := s.PutIf(ctx, key, []byte("1"), 0)
	if err != nil {
		t.Fatalf("PutIf(0) of a new key: %v", err)
	}
	expect(t, s, kv.Entry{Key: key, Value: []byte("1"), Revision: first})
	conflict("0 for a key that exists", 0)
	conflict("a revision of the future", first+1000)
	second, err := s.PutIf(ctx, key, []byte("2"), first)
	if err != nil {
		t.Fatalf("PutIf with the revision of PutIf: %v", err)
	}
	conflict("the revision before", first)
	expect(t, s, kv.Entry{Key: key, Value: []byte("2"), Revision: second})
	third := put(t, s, key, "3")
	conflict("a revision that Put has replaced", second)
	if _, err := s.PutIf(ctx, key, []byte("4"), third.Revision); err != nil {
		t.Errorf("PutIf with the revision of Put: %v", err)
	}
}

func testOldRevisions(t *testing.T, _ Harness, s kv.Store, prefix string) {
	ctx, key := t.Context(), prefix+"a"
	old := map[uint64]bool{}
	for range 3 {
		e := put(t, s, key, "1")
		if old[e.Revision] {
			t.Errorf("revision %d came back after Delete", e.Revision)
		}
		old[e.Revision] = true
		remove(t, s, key)
		if _, err := s.PutIf(ctx, key, []byte("2"), e.Revision); !errors.Is(err, kv.ErrConflict) {
			t.Errorf("PutIf with the revision of a deleted key: %v, want ErrConflict", err)
		}
		revision, err := s.PutIf(ctx, key, []byte("3"), 0)
		if err != nil || old[revision] {
			t.Errorf("PutIf(0) after Delete = %d, %v, want a new revision", revision, err)
		}
		old[revision] = true
		for r := range old {
			if r == revision {
				continue
			}
			if _, err := s.PutIf(ctx, key, []byte("4"), r); !errors.Is(err, kv.ErrConflict) {
				t.Errorf("PutIf with the revision of an earlier life of the key: %v, want ErrConflict", err)
			}
		}
	}
}

func testDelete(t *testing.T, _ Harness, s kv.Store, prefix string) {
	remove(t, s, prefix+"never")
	put(t, s, prefix+"a", "1")
	below := put(t, s, prefix+"a/b", "2")
	for range 2 {
		remove(t, s, prefix+"a")
		expectMissing(t, s, prefix+"a")
	}
	expect(t, s, below)
	expect(t, s, put(t, s, prefix+"a", "3"))
}

func testInvalid(t *testing.T, _ Harness, s kv.Store, prefix string) {
	ctx := t.Context()
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", "a b", "a*", "a>", "é", "a\x00", "a?b", "a%2Fb", "a:b", ".", "..", "a/../b", ".a", "a.", "a/.b", "a..b",
		strings.Repeat("k", kv.MaxKey+1),
	} {
		_, err1 := s.Get(ctx, key)
		_, err2 := s.Put(ctx, key, nil)
		_, err3 := s.PutIf(ctx, key, nil, 0)
		for method, err := range map[string]error{"Get": err1, "Put": err2, "PutIf": err3, "Delete": s.Delete(ctx, key)} {
			if !errors.Is(err, kv.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
				t.Errorf("%s(%q): %v, want ErrInvalid and the key in the text", method, key, err)
			}
		}
	}
	for _, p := range []string{"/", "a//", "a b", "*", "..", "a/.", strings.Repeat("k", kv.MaxKey+1)} {
		err := s.Watch(ctx, p, func([]kv.Entry) { t.Errorf("Watch(%q) told a list", p) })
		if !errors.Is(err, kv.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q", p)) {
			t.Errorf("Watch(%q): %v, want ErrInvalid and the prefix in the text", p, err)
		}
	}
	big := make([]byte, kv.MaxValue+1)
	_, err1 := s.Put(ctx, prefix+"a", big)
	_, err2 := s.PutIf(ctx, prefix+"a", big, 0)
	for method, err := range map[string]error{"Put": err1, "PutIf": err2} {
		if !errors.Is(err, kv.ErrInvalid) || !strings.Contains(err.Error(), prefix+"a") {
			t.Errorf("%s of %d bytes: %v, want ErrInvalid and the key in the text", method, len(big), err)
		}
	}
	expectMissing(t, s, prefix+"a")
}

func testLargest(t *testing.T, h Harness, s kv.Store, prefix string) {
	key := prefix + strings.Repeat("k", kv.MaxKey-len(prefix))
	value := strings.Repeat("\x00v\xff", kv.MaxValue)[:kv.MaxValue]
	first := put(t, s, key, value)
	expect(t, s, first)
	revision, err := s.PutIf(t.Context(), key, first.Value, first.Revision)
	if err != nil {
		t.Fatalf("PutIf of the largest key and value: %v", err)
	}
	first.Revision = revision
	watch(t, h, s, prefix, nil).Until(first)
	remove(t, s, key)
	expectMissing(t, s, key)
}

func testOwnership(t *testing.T, h Harness, s kv.Store, prefix string) {
	value := []byte("1234")
	revision, err := s.Put(t.Context(), prefix+"w/a", value)
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	want := kv.Entry{Key: prefix + "w/a", Value: []byte("1234"), Revision: revision}
	copy(value, "XXXX")
	got, err := s.Get(t.Context(), want.Key)
	if err != nil || !got.Equal(want) {
		t.Fatalf("Get after the writer changed its bytes = %s, %v, want %s", show(got), err, show(want))
	}
	copy(got.Value, "YYYY")
	expect(t, s, want)
	w := watch(t, h, s, prefix+"w/", nil)
	list := w.Until(want)
	copy(list[0].Value, "ZZZZ")
	list[0].Key = "changed"
	expect(t, s, want)
	other := watch(t, h, s, prefix+"other", nil)
	for i := range 10 { // no news for w, also when it compares with what it told
		other.Until(put(t, s, prefix+"other", fmt.Sprint(i)))
	}
	b := put(t, s, prefix+"w/b", "5678")
	if got := w.Next(); !slices.EqualFunc(got, []kv.Entry{want, b}, kv.Entry.Equal) {
		t.Errorf("the next list after the watcher changed its list is %s, want %s", show(got...), show(want, b))
	}
}

const writers = 16

// testRace lets all writers start from one revision, at the same moment, some with the same bytes.
// A fast store has a short moment between compare and write, so it runs more rounds.
func testRace(t *testing.T, _ Harness, s kv.Store, prefix string) {
	key := prefix + "a"
	var revision uint64
	begun := time.Now()
	for round := 0; round < 12 || round < 2000 && time.Since(begun) < time.Second; round++ {
		if round == 6 { // and once more for a key that is gone
			remove(t, s, key)
			revision = 0
		}
		var wg sync.WaitGroup
		begin := make(chan struct{})
		got, errs, values := make([]uint64, writers), make([]error, writers), make([]string, writers)
		for i := range writers {
			values[i] = fmt.Sprint("round ", round, " writer ", i%(writers/2))
			wg.Go(func() {
				<-begin
				got[i], errs[i] = s.PutIf(t.Context(), key, []byte(values[i]), revision)
			})
		}
		close(begin)
		wg.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won >= 0:
				t.Fatalf("round %d: writers %d and %d both replaced revision %d", round, won, i, revision)
			case err == nil:
				won = i
			case !errors.Is(err, kv.ErrConflict):
				t.Fatalf("round %d, writer %d: %v, want ErrConflict", round, i, err)
			}
		}
		if won < 0 {
			t.Fatalf("round %d: nobody replaced revision %d", round, revision)
		}
		expect(t, s, kv.Entry{Key: key, Value: []byte(values[won]), Revision: got[won]})
		revision = got[won]
	}
}

// testCounter adds with read, compare and write from many sides.
func testCounter(t *testing.T, _ Harness, s kv.Store, prefix string) {
	key := prefix + "counter"
	add := func() error {
		for {
			var n int
			e, err := s.Get(t.Context(), key)
			switch {
			case err == nil:
				if _, err := fmt.Sscan(string(e.Value), &n); err != nil {
					return err
				}
			case !errors.Is(err, kv.ErrNotFound):
				return err
			}
			_, err = s.PutIf(t.Context(), key, fmt.Append(nil, n+1), e.Revision)
			if !errors.Is(err, kv.ErrConflict) {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if err := add(); err != nil {
					t.Errorf("add: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e, err := s.Get(t.Context(), key); err != nil || string(e.Value) != "40" {
		t.Errorf("after 40 additions the counter is %q, %v", e.Value, err)
	}
}
