package kv_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/kv/kvtest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return kv.NewMemory() }})
}

func TestZeroMemory(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return new(kv.Memory) }})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", kv.MaxKey)
	for _, tc := range []struct {
		text        string
		key, prefix bool
	}{
		{"", false, true},
		{"a", true, true},
		{"rollout/order-service/Weights_1.json", true, true},
		{"a/", false, true},
		{"a.", false, true},
		{"a/b.", false, true},
		{"/", false, false},
		{".", false, false},
		{"a/.", false, false},
		{"a//", false, false},
		{"a..", false, false},
		{"a\n", false, false},
		{long, true, true},
		{long[1:] + "/", false, false}, // no key can begin so
		{long[2:] + "/", false, true},
		{long + "k", false, false},
	} {
		if err := kv.CheckKey(tc.text); (err == nil) != tc.key || err != nil && !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("CheckKey(%q) = %v, want valid = %v", tc.text, err, tc.key)
		}
		if err := kv.CheckPrefix(tc.text); (err == nil) != tc.prefix || err != nil && !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("CheckPrefix(%q) = %v, want valid = %v", tc.text, err, tc.prefix)
		}
	}
}

func TestOpenMemory(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "memory:"} {
		s, err := kv.Open(t.Context(), url)
		if _, ok := s.(*kv.Memory); !ok || err != nil {
			t.Errorf("Open(%q) = %T, %v, want a Memory", url, s, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"secret":                    "expected scheme:rest",
		"memory:x":                  "nothing after it",
		"zookeeper://secret@host/x": `scheme "zookeeper"`,
	} {
		_, err := kv.Open(t.Context(), url)
		if !errors.Is(err, kv.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): the error shows the password: %v", url, err)
		}
	}
}

func TestDrivers(t *testing.T) {
	t.Parallel()
	failed := errors.New("no route")
	scheme := strings.ToLower("t" + rand.Text())
	kv.RegisterDriver(scheme, func(_ context.Context, url string) (kv.Store, error) {
		if url == scheme+"://down" {
			return nil, failed
		}
		return kv.NewMemory(), nil
	})
	if s, err := kv.Open(t.Context(), scheme+"://up"); s == nil || err != nil {
		t.Errorf("Open(%s://up) = %v, %v", scheme, s, err)
	}
	if _, err := kv.Open(t.Context(), scheme+"://down"); !errors.Is(err, failed) {
		t.Errorf("Open(%s://down): %v, want the driver's error", scheme, err)
	}
	open := func(context.Context, string) (kv.Store, error) { return nil, nil }
	for _, scheme := range []string{scheme, "memory", ""} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("RegisterDriver(%q) did not panic", scheme)
				}
			}()
			kv.RegisterDriver(scheme, open)
		}()
	}
}

func ExampleMemory() {
	store := kv.NewMemory()
	ctx, cancel := context.WithCancel(context.Background())
	_, _ = store.Put(ctx, "rollout/order-service/weight", []byte("10"))

	_ = store.Watch(ctx, "rollout/", func(list []kv.Entry) {
		for _, e := range list {
			fmt.Printf("%s is %s\n", e.Key, e.Value)
		}
		cancel()
	})
	// Output: rollout/order-service/weight is 10
}

func ExampleStore_putIf() {
	store, err := kv.Open(context.Background(), "memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	revision, _ := store.PutIf(ctx, "settings/banner", []byte("open"), 0)
	_, err = store.PutIf(ctx, "settings/banner", []byte("closed"), 0)
	fmt.Println(errors.Is(err, kv.ErrConflict))

	_, err = store.PutIf(ctx, "settings/banner", []byte("closed"), revision)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
