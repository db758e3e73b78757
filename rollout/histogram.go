package rollout

import (
	"cmp"
	"math"
	"slices"

	"github.com/kaptar/kaptar/rollout/analysis"
)

// bounds are those of a bucket: above lower, up to upper.
type bounds struct{ lower, upper float64 }

// buckets are the counts of a histogram, or of the sum of several. None of them is 0.
type buckets map[bounds]uint64

func (b buckets) add(list []analysis.Bucket) {
	for _, one := range list {
		if one.Count > 0 {
			b[bounds{one.Lower, min(one.Upper, math.MaxFloat64)}] += one.Count // JSON knows no infinity
		}
	}
}

// since returns the growth since before; ok is false if anything has decreased.
func (b buckets) since(before buckets) (d buckets, ok bool) {
	d = buckets{}
	for at, n := range before {
		if b[at] < n {
			return nil, false
		}
	}
	for at, n := range b {
		if n > before[at] {
			d[at] = n - before[at]
		}
	}
	return d, true
}

func (b buckets) list() []analysis.Bucket {
	out := make([]analysis.Bucket, 0, len(b))
	for at, n := range b {
		out = append(out, analysis.Bucket{Lower: at.lower, Upper: at.upper, Count: n})
	}
	slices.SortFunc(out, func(a, b analysis.Bucket) int { return cmp.Compare(a.Upper, b.Upper) })
	return out
}
