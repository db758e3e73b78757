package command

import (
	"math"
	"testing"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	got, err := replace("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n", "x", "\nnew\n")
	if want := "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"; got != want || err != nil {
		t.Errorf("replace = %q, %v, want %q", got, err, want)
	}
	if _, err := replace("a\n<!-- x -->\n", "x", "new"); err == nil {
		t.Error("a document without the end's mark was accepted")
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		list []float64
		want [3]float64
	}{{[]float64{3}, [3]float64{3, 3, 3}}, {[]float64{9, 1, 2}, [3]float64{2, 1, 9}}, {[]float64{4, 1, 2, 100}, [3]float64{3, 1, 100}}} {
		if middle, least, most := Spread(tc.list); [3]float64{middle, least, most} != tc.want {
			t.Errorf("Spread(%v) = %v, %v, %v, want %v", tc.list, middle, least, most, tc.want)
		}
	}
	if middle, _, _ := Spread(nil); !math.IsNaN(middle) {
		t.Errorf("the median of nothing is %v, want NaN", middle)
	}
}
