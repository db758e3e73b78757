package calls

import (
	"math"
	"math/bits"
	"slices"
	"time"
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

// known returns the values that are not NaN, in order.
func known(list []float64) []float64 {
	return slices.Sorted(func(yield func(float64) bool) {
		for _, v := range list {
			if !math.IsNaN(v) && !yield(v) {
				return
			}
		}
	})
}

// median returns the middle of the known values, or the mean of the two in the middle; NaN of none.
func median(list []float64) float64 {
	list = known(list)
	n := len(list)
	if n == 0 {
		return math.NaN()
	}
	return (list[(n-1)/2] + list[n/2]) / 2
}

// ratios are a stack's rounds against its base's: the median, the least and the greatest. Rounds in
// which one of the two is missing do not count; without any all are NaN.
type ratios struct{ median, least, most float64 }

func ratiosOf(list, base []float64) ratios {
	each := make([]float64, len(list))
	for i := range list {
		each[i] = list[i] / base[i]
	}
	if each = known(each); len(each) == 0 {
		return ratios{math.NaN(), math.NaN(), math.NaN()}
	}
	return ratios{median(each), each[0], each[len(each)-1]}
}
