package config_test

import (
	"math"
	"testing"

	"github.com/kaptar/kaptar/config"
)

func TestSize(t *testing.T) {
	t.Parallel()
	cases := []struct {
		in, text string
		want     config.Size
	}{
		{"0", "0", 0}, {"512", "512", 512}, {"512B", "512", 512}, {"1KB", "1KB", 1000}, {"1kb", "1KB", 1000}, {"1KiB", "1KiB", 1024},
		{"64kib", "64KiB", 65536}, {" 2 MiB ", "2MiB", 2 << 20}, {"3MB", "3MB", 3e6}, {"4GiB", "4GiB", 4 << 30}, {"5GB", "5GB", 5e9},
		{"6TiB", "6TiB", 6 << 40}, {"7TB", "7TB", 7e12}, {"1500", "1500", 1500}, {"9223372036854775807", "9223372036854775807", math.MaxInt64},
	}
	for _, c := range cases {
		var got config.Size
		if err := got.UnmarshalText([]byte(c.in)); err != nil || got != c.want || got.String() != c.text {
			t.Errorf("%q: got %d (%s), %v, want %d (%s)", c.in, int64(got), got, err, int64(c.want), c.text)
		}
		var again config.Size
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q: its text %s gives %d, %v", c.in, got, int64(again), err)
		}
	}
	for _, in := range []string{"", "KB", "-1", "1.5MiB", "1 K B", "1PB", "9223372036854775808", "9223372036854775807KB", "1e3", "0x10"} {
		got := config.Size(7)
		if err := got.UnmarshalText([]byte(in)); err == nil || got != 7 {
			t.Errorf("%q: got %d, %v, want an error and no change", in, int64(got), err)
		}
	}
}
