package calls

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/kaptar/kaptar/bench/internal/command"
)

// histogram counts durations in buckets that are at most 1/32 wider than where they begin.
type histogram [36 * 32]uint32

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	exp := max(bits.Len64(v)-6, 0)
	return min(exp*32+int(v>>exp), len(histogram{})-1) //nolint:gosec // G115: v>>exp is below 64
}

// middle returns the middle of bucket i.
func middle(i int) time.Duration {
	exp := max(i/32-1, 0)
	low := time.Duration(i-exp*32) << exp
	return low + time.Duration(1)<<exp/2
}

func (h *histogram) add(d time.Duration) { h[bucket(d)]++ }

func (h *histogram) merge(o *histogram) {
	for i, n := range o {
		h[i] += n
	}
}

// quantile returns, in microseconds, what the share q of all durations is not longer than; NaN of an
// empty histogram.
func (h *histogram) quantile(q float64) float64 {
	total := uint64(0)
	for _, n := range h {
		total += uint64(n)
	}
	rank, seen := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i, n := range h {
		if seen += uint64(n); seen >= rank && n > 0 {
			return middle(i).Seconds() * 1e6
		}
	}
	return math.NaN()
}

// spread returns the median, the least and the greatest of the values that are not NaN.
func spread(list []float64) (middle, least, most float64) {
	return command.Spread(slices.DeleteFunc(slices.Clone(list), math.IsNaN))
}

// ratios are a stack's rounds against its base's: the median, the least and the greatest. Rounds in
// which one of the two is missing do not count; without any all are NaN.
type ratios struct{ median, least, most float64 }

func ratiosOf(list, base []float64) (r ratios) {
	each := make([]float64, len(list))
	for i := range list {
		each[i] = list[i] / base[i]
	}
	r.median, r.least, r.most = spread(each)
	return r
}
