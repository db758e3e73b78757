package analysis

import (
	"math"
	"math/rand/v2"
	"slices"
)

// poisson draws numbers with a fixed mean, from a table of the distribution.
type poisson struct {
	first int
	cdf   []float64
	guide [256]int32
}

func newPoisson(mean float64) *poisson {
	p := &poisson{}
	if mean < 1e-9 {
		p.cdf = []float64{1}
		return p
	}
	spread := 8*math.Sqrt(mean) + 16
	p.first = int(max(0, mean-spread))
	sum := 0.0
	for k := p.first; k <= int(mean+spread); k++ {
		gamma, _ := math.Lgamma(float64(k) + 1)
		sum += math.Exp(float64(k)*math.Log(mean) - mean - gamma)
		p.cdf = append(p.cdf, sum)
	}
	p.cdf[len(p.cdf)-1] = 1
	for i := range p.guide {
		at, _ := slices.BinarySearch(p.cdf, float64(i)/float64(len(p.guide)))
		p.guide[i] = int32(min(at, len(p.cdf)-1)) //nolint:gosec // a small index
	}
	return p
}

func (p *poisson) draw(r *rand.Rand) uint64 {
	u := r.Float64()
	at := int(p.guide[int(u*float64(len(p.guide)))])
	for p.cdf[at] < u {
		at++
	}
	return uint64(p.first + at) //nolint:gosec // not negative
}

// errorStream draws the calls of one version and interval, and the bad ones among them.
type errorStream struct{ good, bad *poisson }

func newErrors(calls, rate float64) errorStream {
	return errorStream{newPoisson(calls * (1 - rate)), newPoisson(calls * rate)}
}

func (s errorStream) draw(r *rand.Rand) Observation {
	bad := s.bad.draw(r)
	return Observation{Count: bad + s.good.draw(r), Bad: bad}
}

// latencyStream draws the histogram of one version and interval.
type latencyStream struct {
	buckets []Bucket
	counts  []*poisson
}

// newLatencies has the bounds that a native histogram of that schema has, in seconds. Tails of less than one in ten
// million are in the outermost buckets.
func newLatencies(calls float64, schema int, cdf func(float64) float64) *latencyStream {
	s := &latencyStream{}
	step := math.Exp2(-float64(schema))
	bound := func(i int) float64 { return math.Exp2(float64(i) * step) }
	for i := int(-12 / step); i < int(6/step); i++ {
		low, high := cdf(bound(i)), cdf(bound(i+1))
		if high < 1e-7 || low > 1-1e-7 {
			continue
		}
		s.buckets = append(s.buckets, Bucket{Lower: bound(i), Upper: bound(i + 1)})
		s.counts = append(s.counts, newPoisson(calls*(high-low)))
	}
	return s
}

// draw overwrites what it returned before.
func (s *latencyStream) draw(r *rand.Rand) Observation {
	for i, c := range s.counts {
		s.buckets[i].Count = c.draw(r)
	}
	return Observation{Histogram: s.buckets}
}

// The distributions of latency, in seconds, of a version that is slower by a factor.

func lognormal(median, sigma, slower float64) func(float64) float64 {
	return func(x float64) float64 { return math.Erfc(-math.Log(x/slower/median)/sigma/math.Sqrt2) / 2 }
}

// heavy is Lomax's distribution, whose variance is infinite.
func heavy(slower float64) func(float64) float64 {
	return func(x float64) float64 { return 1 - math.Pow(1+x/slower/0.03, -1.8) }
}

// bimodal is a cache that 90 % of the calls hit.
func bimodal(slower float64) func(float64) float64 {
	hit, miss := lognormal(0.004, 0.3, slower), lognormal(0.08, 0.4, slower)
	return func(x float64) float64 { return 0.9*hit(x) + 0.1*miss(x) }
}
