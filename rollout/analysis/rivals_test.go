package analysis

import (
	"math"
	"slices"
)

// What others do, on the same streams. Both are simplified; docs/releases.md says how.

// thresholds is Argo Rollouts' analysis with its usual settings: every three intervals the canary's value is compared
// with a number that was written down before; the fourth check that fails aborts, the end promotes.
type thresholds struct {
	limit         float64
	looks, failed int
	calls, bad    uint64
	worst         [3]float64
}

// add takes an interval and reports whether the canary is to be aborted.
func (a *thresholds) add(o Observation) bool {
	a.calls, a.bad = a.calls+o.Count, a.bad+o.Bad
	value := 0.0
	if o.Histogram != nil {
		a.worst[a.looks%3] = quantileOf(o.Histogram, 0.95)
	}
	if a.looks++; a.looks%3 != 0 {
		return false
	}
	if o.Histogram != nil {
		for _, v := range a.worst {
			value += v / 3
		}
	} else {
		value = float64(a.bad) / float64(max(1, a.calls))
	}
	a.calls, a.bad = 0, 0
	if value > a.limit {
		a.failed++
	}
	return a.failed > 3
}

// mannWhitney is Kayenta's: at the end of the window the values of all intervals of the canary are
// compared with stable's by ranks, and the canary is aborted if they are greater at 98 %.
type mannWhitney struct{ canary, stable []float64 }

func (w *mannWhitney) add(c, s Observation) {
	value := func(o Observation) float64 {
		if o.Histogram != nil {
			return quantileOf(o.Histogram, 0.95)
		}
		return float64(o.Bad) / float64(max(1, o.Count))
	}
	w.canary, w.stable = append(w.canary, value(c)), append(w.stable, value(s))
}

func (w *mannWhitney) high() bool {
	slices.Sort(w.canary)
	slices.Sort(w.stable)
	u, ties, n := 0.0, 0.0, float64(len(w.canary))
	below, upTo := 0, 0 // values of stable less than, and not more than, the canary's
	for i, v := range w.canary {
		for below < len(w.stable) && w.stable[below] < v {
			below++
		}
		for upTo = max(upTo, below); upTo < len(w.stable) && w.stable[upTo] == v; {
			upTo++
		}
		u += float64(below+upTo) / 2
		if i == 0 || w.canary[i-1] != v {
			same := 1
			for i+same < len(w.canary) && w.canary[i+same] == v {
				same++
			}
			t := float64(same + upTo - below)
			ties += t*t*t - t
		}
	}
	variance := n * n / 12 * (2*n + 1 - ties/(2*n*(2*n-1)))
	return variance > 0 && (u-n*n/2-0.5)/math.Sqrt(variance) > 2.326
}

// quantileOf interpolates, as histogram_quantile of Prometheus does.
func quantileOf(buckets []Bucket, q float64) float64 {
	all := uint64(0)
	for _, b := range buckets {
		all += b.Count
	}
	left := q * float64(all)
	for _, b := range buckets {
		if n := float64(b.Count); n >= left && n > 0 {
			if math.IsInf(b.Upper, 1) {
				return b.Lower
			}
			return b.Lower + (b.Upper-b.Lower)*left/n
		}
		left -= float64(b.Count)
	}
	return 0
}
