package deadline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		0:                       "1",
		-time.Second:            "1",
		999 * time.Microsecond:  "1",
		1500 * time.Millisecond: "1500",
		time.Hour:               "3600000",
	} {
		if got := deadline.Format(in); got != want {
			t.Errorf("Format(%v) = %q, want %q", in, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"1":                  time.Millisecond,
		"1500":               1500 * time.Millisecond,
		"86400000":           24 * time.Hour,
		"86400001":           24 * time.Hour,
		"999999999999999999": 24 * time.Hour,
	} {
		got, ok := deadline.Parse(in)
		if !ok || got != want {
			t.Errorf("Parse(%q) = %v, %t, want %v, true", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "+1", "1.5", "1s", " 1", "0x1", "9999999999999999999", "١"} {
		if got, ok := deadline.Parse(in); ok {
			t.Errorf("Parse(%q) = %v, true, want false", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1500")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := deadline.Parse(s)
		if ok != (d > 0) || d > 24*time.Hour {
			t.Errorf("Parse(%q) = %v, %t", s, d, ok)
		}
	})
}

func ExampleParse() {
	left, ok := deadline.Parse("250")
	fmt.Println(left, ok)
	// Output: 250ms true
}
