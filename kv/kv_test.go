package kv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/kv/kvtest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return new(kv.Memory) }})
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
	if got := kv.Segment("v1.2+ä/b\xff"); got != "v1.2___b_" {
		t.Errorf("Segment: %q", got)
	}
}

func ExampleMemory() {
	store := new(kv.Memory)
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
	store, ctx := new(kv.Memory), context.Background()
	revision, _ := store.PutIf(ctx, "settings/banner", []byte("open"), 0)
	_, err := store.PutIf(ctx, "settings/banner", []byte("closed"), 0)
	fmt.Println(errors.Is(err, kv.ErrConflict))

	_, err = store.PutIf(ctx, "settings/banner", []byte("closed"), revision)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
