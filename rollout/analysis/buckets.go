package analysis

import (
	"math"

	dto "github.com/prometheus/client_model/go"
)

// Buckets returns the buckets of a scraped histogram, by ascending bounds: those of the native
// histogram if there is one, since they are fine enough for a quantile, else the classic ones.
// Counts are totals since the start of the process; an Observation needs the difference of two
// scrapes. Clients expose native histograms only as protobuf (header Accept).
func Buckets(h *dto.Histogram) (list []Bucket) {
	if len(h.GetPositiveSpan()) > 0 || h.GetZeroCount() > 0 {
		return native(h)
	}
	before, lower := uint64(0), 0.0
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) || b.GetUpperBound() <= lower {
			continue
		}
		list = append(list, Bucket{lower, b.GetUpperBound(), b.GetCumulativeCount() - min(before, b.GetCumulativeCount())})
		before, lower = b.GetCumulativeCount(), b.GetUpperBound()
	}
	return append(list, Bucket{lower, math.Inf(1), h.GetSampleCount() - min(before, h.GetSampleCount())})
}

// native reads spans of buckets with differences of counts. Bucket i of schema s ends at 2^(i/2^s).
func native(h *dto.Histogram) (list []Bucket) {
	width := math.Exp2(-float64(h.GetSchema()))
	zero := h.GetZeroThreshold()
	if h.GetZeroCount() > 0 && zero > 0 {
		list = append(list, Bucket{0, zero, h.GetZeroCount()})
	}
	i, deltas, count := 0, h.GetPositiveDelta(), int64(0)
	for _, span := range h.GetPositiveSpan() {
		i += int(span.GetOffset())
		for range min(int(span.GetLength()), len(deltas)) {
			count += deltas[0]
			deltas = deltas[1:]
			lower, upper := math.Exp2(float64(i-1)*width), math.Exp2(float64(i)*width)
			if count > 0 && upper > lower && lower >= zero {
				list = append(list, Bucket{lower, upper, uint64(count)})
			}
			i++
		}
	}
	return list
}
