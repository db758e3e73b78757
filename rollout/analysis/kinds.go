package analysis

import (
	"errors"
	"math"
)

// addProportion bets with what was known before the interval, then learns from it.
func (m *metric) addProportion(c, s Observation) {
	if m.Stable.Recent > 0 {
		n := sample{float64(c.Count), float64(c.Bad), float64(s.Count), float64(s.Bad)}
		ts := rate(m.Stable.Hit, m.Stable.Recent)
		m.Worse.add(n, 0, worse(known(ts, m.Stable.Recent, n.ns, 1), 0, m.Tolerance)...)
		m.Within.better(n, m.Tolerance, ts, known(ts, m.Stable.Recent, n.ns, -1)) // a canary like stable
	}
	m.note(c.Count)
	m.Canary.count(c.Count, c.Bad)
	m.Stable.count(s.Count, s.Bad)
}

// note counts an interval in which the canary had calls.
func (m *metric) note(canary uint64) {
	if canary > 0 {
		m.Looks++
	}
}

// allowed is the tolerated difference to stable's value.
func (m *metric) allowed(stable float64) float64 {
	if m.Kind == Proportion {
		return m.Tolerance
	}
	return max(stable*m.Tolerance, m.Least)
}

// addQuantile tests the shares above bounds that earlier intervals of stable determine. Let b be
// the bucket of stable's quantile Q. A canary that is not slower has no larger share above b's
// upper bound, or above any greater number, than stable has above that bound. A canary that is
// slower by the tolerance or more, with tails as stable's, has above v = b's lower bound + the
// tolerance at least the share that stable has above the lower bound. Both are half-planes for any
// bound. The distance between the share at the bound and 1-Q, which is known beforehand, is allowed
// for, so the position of Q in b does not matter. Samples in the bucket of v count as above it.
func (m *metric) addQuantile(c, s Observation) {
	b, aboveLower, aboveUpper, all := m.Stable.at(m.Quantile)
	tail := 1 - m.Quantile
	if all > 0 {
		if b.Upper < math.MaxFloat64 {
			n, delta := above(c, s, b.Upper+m.allowed(b.Upper)/4, b.Upper), max(0, tail-aboveUpper/all)
			m.Worse.add(n, delta, worse(known(rate(aboveUpper, all), all, n.ns, 1), delta, tail/2)...)
		}
		v := b.Lower + m.allowed(b.Lower)
		n := above(c, s, v, b.Lower)
		m.Within.better(n, tail-aboveLower/all, m.Stable.reaching(v, all), known(rate(aboveLower, all), all, n.ns, -1))
	}
	before := m.Canary.Calls
	m.Canary.take(c.Histogram)
	m.Stable.take(s.Histogram)
	m.note(m.Canary.Calls - before)
}

// reaching estimates the share of samples that may be above v.
func (h *history) reaching(v, all float64) float64 {
	k := 0.0
	for _, w := range h.Buckets {
		if w.Upper > v {
			k += w.Weight
		}
	}
	return rate(k, all)
}

// above counts the canary's samples that may be above v, and stable's that are above u.
func above(c, s Observation, v, u float64) (n sample) {
	for _, b := range c.Histogram {
		n.nc += float64(b.Count)
		if b.Upper > v {
			n.kc += float64(b.Count)
		}
	}
	for _, b := range s.Histogram {
		n.ns += float64(b.Count)
		if b.Lower >= u {
			n.ks += float64(b.Count)
		}
	}
	return n
}

// running is the number of intervals running for which a Level must be on one side of its limit.
const running = 2

func (m *metric) addLevel(canary, stable float64) {
	m.Looks++
	m.Levels = &[2]float64{canary, stable}
	if canary > stable+m.allowed(stable) {
		m.Above, m.Below = m.Above+1, 0
	} else {
		m.Above, m.Below = 0, m.Below+1
	}
}

// checkState refuses a metric of JSON that New and Add cannot have made.
func (m *metric) checkState() error {
	if m.Looks < 0 || m.Above < 0 || m.Below < 0 {
		return errors.New("a number is negative")
	}
	if m.Kind == Level {
		if m.Levels != nil && !(m.Levels[0] >= 0 && m.Levels[1] >= 0) {
			return errors.New("levels: expected 0 or more")
		}
		return nil
	}
	for _, part := range []interface{ check() error }{m.Worse, m.Within, m.Canary, m.Stable} {
		if err := part.check(); err != nil {
			return err
		}
	}
	return nil
}
