package wire_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/wire"
)

func TestFormatTimeout(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		0:                       "1",
		-time.Second:            "1",
		999 * time.Microsecond:  "1",
		1500 * time.Millisecond: "1500",
		time.Hour:               "3600000",
	} {
		if got := wire.FormatTimeout(in); got != want {
			t.Errorf("FormatTimeout(%v) = %q, want %q", in, got, want)
		}
	}
}

func TestParseTimeout(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"1":                  time.Millisecond,
		"1500":               1500 * time.Millisecond,
		"86400000":           24 * time.Hour,
		"86400001":           24 * time.Hour,
		"999999999999999999": 24 * time.Hour,
	} {
		got, ok := wire.ParseTimeout(in)
		if !ok || got != want {
			t.Errorf("ParseTimeout(%q) = %v, %t, want %v, true", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "+1", "1.5", "1s", " 1", "0x1", "9999999999999999999", "١"} {
		if got, ok := wire.ParseTimeout(in); ok {
			t.Errorf("ParseTimeout(%q) = %v, true, want false", in, got)
		}
	}
}

func FuzzParseTimeout(f *testing.F) {
	f.Add("1500")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := wire.ParseTimeout(s)
		if ok != (d > 0) || d > 24*time.Hour {
			t.Errorf("ParseTimeout(%q) = %v, %t", s, d, ok)
		}
	})
}

func ExampleParseTimeout() {
	left, ok := wire.ParseTimeout("250")
	fmt.Println(left, ok)
	// Output: 250ms true
}
