package telemetry_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/telemetry"
)

// BenchmarkHistogram measures what a native histogram costs beyond the classic one.
func BenchmarkHistogram(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, 1<<12)
	for i := range values {
		values[i] = 0.002 * math.Exp(r.NormFloat64())
	}
	for name, factor := range map[string]float64{"classic": 0, "native": telemetry.NativeFactor} {
		b.Run(name, func(b *testing.B) {
			h := prometheus.NewHistogram(prometheus.HistogramOpts{
				Name: "x_seconds", Help: "of a benchmark", Buckets: telemetry.Buckets(), NativeHistogramBucketFactor: factor,
			})
			for _, v := range values {
				h.Observe(v)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h.Observe(values[i%len(values)])
			}
		})
	}
}
