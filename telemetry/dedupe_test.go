package telemetry

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
)

// TestDedupe: of keys that come again, alike ones among them, the last value stays where the first was.
func TestDedupe(t *testing.T) {
	t.Parallel()
	r := new(record)
	var want []attribute.KeyValue
	for _, key := range []string{"a", "b", "aab", "bab", "http.route", "http.method"} {
		want = append(want, attribute.Int(key, 2))
	}
	for i := range 70 { // more keys than bits
		want = append(want, attribute.Int(fmt.Sprint("key-", i), 2))
	}
	for value := range 3 {
		for i, a := range want {
			if value > 0 || i%2 == 0 {
				r.attrs = append(r.attrs, attribute.Int(string(a.Key), value))
			}
		}
	}
	slices.SortFunc(want, byKey)
	r.dedupe()
	if first := r.attrs[1].Key; first != "aab" {
		t.Errorf("%q is second, want aab", first)
	}
	slices.SortFunc(r.attrs, byKey)
	if !slices.Equal(r.attrs, want) {
		t.Errorf("got %v\nwant %v", r.attrs, want)
	}
}

func byKey(a, b attribute.KeyValue) int { return cmp.Compare(a.Key, b.Key) }
