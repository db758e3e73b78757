package analysis

import (
	"math"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestBucketsOfAScrape compares with what was observed, in both forms of a real histogram.
func TestBucketsOfAScrape(t *testing.T) {
	t.Parallel()
	values := []float64{0, 0.0004, 0.003, 0.0031, 0.2, 1, 1, 90}
	for name, factor := range map[string]float64{"classic": 0, "native": 1.05} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x_seconds", Help: "of a test", Buckets: []float64{.001, .01, .1, 1, 10}, NativeHistogramBucketFactor: factor})
			for _, v := range values {
				h.Observe(v)
			}
			var m dto.Metric
			if err := h.Write(&m); err != nil {
				t.Fatal(err)
			}
			got := Buckets(m.GetHistogram())
			if err := checkBuckets(got); err != nil {
				t.Fatal(err)
			}
			sum := uint64(0)
			for _, b := range got {
				want := uint64(0)
				for _, v := range values {
					if v > b.Lower && v <= b.Upper || v == 0 && b.Lower == 0 {
						want++
					}
				}
				if b.Count != want {
					t.Errorf("bucket from %g to %g: %d samples, want %d", b.Lower, b.Upper, b.Count, want)
				}
				sum += b.Count
				if factor > 0 && b.Lower > 0 && math.Abs(b.Upper/b.Lower-1.0443) > 0.0001 {
					t.Errorf("bucket from %g to %g: want bounds 4.4 %% apart", b.Lower, b.Upper)
				}
			}
			if sum != uint64(len(values)) {
				t.Errorf("%d samples in %v, want %d", sum, got, len(values))
			}
		})
	}
}
