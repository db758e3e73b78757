package dns

import (
	"testing"
	"time"
)

func TestPauses(t *testing.T) {
	t.Parallel()
	lo, hi := time.Hour, time.Duration(0)
	for range 2000 {
		d := spread(5 * time.Second)
		lo, hi = min(lo, d), max(hi, d)
	}
	if lo < 4500*time.Millisecond || hi > 5500*time.Millisecond || hi-lo < 900*time.Millisecond {
		t.Errorf("pauses between %v and %v, want about all of 4.5s to 5.5s", lo, hi)
	}
}

// What the search list does to names that are not complete depends on the machine.
func TestNamesAreComplete(t *testing.T) {
	t.Parallel()
	for opts, want := range map[options]string{
		{}:                                    "user",
		{Server: "127.0.0.1"}:                 "user.",
		{Domain: "shop.example."}:             "user.shop.example.",
		{Server: "127.0.0.1", Domain: "shop"}: "user.shop.",
	} {
		opts, err := opts.withDefaults()
		if got := opts.name("user"); err != nil || got != want {
			t.Errorf("name of user with %+v is %q, %v, want %q", opts, got, err, want)
		}
	}
}
