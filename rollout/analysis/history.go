package analysis

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// history is what earlier intervals showed of one version: all of it, for the reader, and a recent
// part in which each interval counts 2 % less than the next, for bets. So bets follow a rate that
// changes with the time of day.
type history struct {
	Calls, Bad  uint64
	Recent, Hit float64 // calls, and bad ones among them
	Buckets     spans   `json:",omitempty"` // ascending and disjoint
}

const (
	remember    = 0.98
	mostBuckets = 1000
)

// weight is a Bucket of the recent past.
type weight struct{ Lower, Upper, Weight float64 }

// spans are buckets. Their JSON is one list for each run of adjacent ones: the lower bound, then
// the upper bound and the weight of each.
type spans []weight

// MarshalJSON implements json.Marshaler.
func (s spans) MarshalJSON() ([]byte, error) {
	var runs [][]float64
	for i, w := range s {
		if i == 0 || s[i-1].Upper != w.Lower {
			runs = append(runs, []float64{w.Lower})
		}
		last := &runs[len(runs)-1]
		*last = append(*last, w.Upper, w.Weight)
	}
	return json.Marshal(runs)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *spans) UnmarshalJSON(text []byte) error {
	var runs [][]float64
	if err := json.Unmarshal(text, &runs); err != nil {
		return err
	}
	*s = nil
	for _, run := range runs {
		for i := 2; i < len(run); i += 2 {
			lower := run[0]
			if i > 2 {
				lower = run[i-3]
			}
			*s = append(*s, weight{lower, run[i-1], run[i]})
		}
	}
	return nil
}

func (h *history) count(calls, bad uint64) {
	h.Calls += calls
	h.Bad += bad
	h.Recent = h.Recent*remember + float64(calls)
	h.Hit = h.Hit*remember + float64(bad)
}

// take adds an interval's histogram, whose bounds were checked.
func (h *history) take(buckets []Bucket) {
	kept := h.Buckets[:0]
	for _, w := range h.Buckets {
		if w.Weight = math.Round(1000*remember*w.Weight) / 1000; w.Weight > 0 { // short numbers in JSON
			kept = append(kept, w)
		}
	}
	h.Buckets = kept
	at, calls := 0, uint64(0)
	for _, b := range buckets {
		if b.Count == 0 {
			continue
		}
		calls += b.Count
		for at < len(h.Buckets) && h.Buckets[at].Lower < b.Lower {
			at++
		}
		if at == len(h.Buckets) || h.Buckets[at].Lower != b.Lower {
			h.Buckets = slices.Insert(h.Buckets, at, weight{b.Lower, finite(b.Upper), 0})
		}
		h.Buckets[at].Weight += float64(b.Count)
	}
	h.count(calls, 0)
}

// finite limits upper to what JSON can write.
func finite(upper float64) float64 { return min(upper, math.MaxFloat64) }

// at returns the bucket of the q-quantile, and the weights above its lower and its upper bound.
func (h *history) at(q float64) (b weight, aboveLower, aboveUpper, all float64) {
	for _, w := range h.Buckets {
		all += w.Weight
	}
	for _, w := range slices.Backward(h.Buckets) {
		b, aboveUpper, aboveLower = w, aboveLower, aboveLower+w.Weight
		if aboveLower >= (1-q)*all {
			break
		}
	}
	return b, aboveLower, aboveUpper, all
}

// quantile estimates the q-quantile for the reader, 0 without samples.
func (h *history) quantile(q float64) float64 {
	b, lower, upper, all := h.at(q)
	if all == 0 {
		return 0
	}
	if b.Upper == math.MaxFloat64 {
		return b.Lower
	}
	return b.Upper - (b.Upper-b.Lower)*(((1-q)*all-upper)/(lower-upper))
}

func checkBuckets(buckets []Bucket) error {
	if len(buckets) > mostBuckets {
		return fmt.Errorf("%d buckets: expected at most %d", len(buckets), mostBuckets)
	}
	before := math.Inf(-1)
	for _, b := range buckets {
		if !(b.Lower >= before && b.Lower < b.Upper) || math.IsInf(b.Lower, 0) {
			return fmt.Errorf("a bucket from %g to %g after one to %g: expected ascending bounds", b.Lower, b.Upper, before)
		}
		if b.Lower < 0 {
			return fmt.Errorf("a bucket from %g to %g: expected bounds from 0", b.Lower, b.Upper)
		}
		if b.Count > mostCount {
			return fmt.Errorf("%d samples in a bucket: expected the difference to the last interval, at most %d", b.Count, uint64(mostCount))
		}
		before = b.Upper
	}
	return nil
}

// sameBounds refuses intervals of two versions that overlap without being equal.
func sameBounds(name string, lists ...[]weight) error {
	for i, a := range lists[:2] {
		for _, b := range lists[i+1:] {
			if x, y, ok := overlap(a, b); !ok {
				return fmt.Errorf("analysis: metric %q: buckets from %g to %g and from %g to %g: expected the same bounds for both versions and all intervals",
					name, x.Lower, x.Upper, y.Lower, y.Upper)
			}
		}
	}
	return nil
}

func weights(list []weight, buckets []Bucket) []weight {
	for _, b := range buckets {
		list = append(list, weight{b.Lower, finite(b.Upper), float64(b.Count)})
	}
	return list
}

func overlap(a, b []weight) (x, y weight, ok bool) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x, y = a[i], b[j]
		switch {
		case x.Lower == y.Lower && x.Upper == y.Upper:
			i++
			j++
		case x.Upper <= y.Lower:
			i++
		case y.Upper <= x.Lower:
			j++
		default:
			return x, y, false
		}
	}
	return x, y, true
}

func (h *history) check() error {
	if h == nil || !(h.Recent >= 0 && h.Hit >= 0 && h.Hit <= h.Recent && h.Recent <= math.MaxFloat64) || h.Bad > h.Calls || len(h.Buckets) > 2*mostBuckets {
		return errors.New("history: want what MarshalJSON wrote")
	}
	before := 0.0
	for _, w := range h.Buckets {
		if !(w.Lower >= before && w.Lower < w.Upper && w.Weight > 0 && w.Weight <= math.MaxFloat64/4/mostBuckets) {
			return errors.New("history: want what MarshalJSON wrote")
		}
		before = w.Upper
	}
	return nil
}
