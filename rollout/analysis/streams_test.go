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
		p.guide[i] = int32(min(at, len(p.cdf)-1))
	}
	return p
}

func (p *poisson) draw(r *rand.PCG) uint64 {
	u := float64(r.Uint64()>>11) * 0x1p-53
	at := int(p.guide[int(u*float64(len(p.guide)))])
	for p.cdf[at] < u {
		at++
	}
	return uint64(p.first + at)
}

// errorStream draws the calls of one version and interval, and the bad ones among them.
type errorStream struct{ good, bad *poisson }

func newErrors(calls, rate float64) errorStream {
	return errorStream{newPoisson(calls * (1 - rate)), newPoisson(calls * rate)}
}

func (s errorStream) draw(r *rand.PCG) Observation {
	bad := s.bad.draw(r)
	return Observation{Count: bad + s.good.draw(r), Bad: bad}
}

// latencyStream draws the histogram of one version and interval.
type latencyStream struct {
	buckets []Bucket
	counts  []*poisson
}

// newLatencies has the bounds of a native histogram with telemetry.NativeFactor. Buckets with less than 0.88 or
// more than 0.99 below them are one each, since nothing of them is looked at for a p95.
func newLatencies(calls float64, cdf func(float64) float64, least, most float64) *latencyStream {
	s := &latencyStream{}
	from, below := 0.0, 0.0
	add := func(to, share float64) {
		if share > 1e-9 {
			s.buckets = append(s.buckets, Bucket{Lower: from, Upper: to})
			s.counts = append(s.counts, newPoisson(calls*share))
		}
		from = to
	}
	for i := -160; i <= 100; i++ {
		bound := math.Exp2(float64(i) / 16)
		if bound >= least && bound <= most {
			add(bound, cdf(bound)-below)
			below = cdf(bound)
		}
	}
	add(math.Inf(1), 1-below)
	return s
}

// draw overwrites what it returned before.
func (s *latencyStream) draw(r *rand.PCG) Observation {
	for i, c := range s.counts {
		s.buckets[i].Count = c.draw(r)
	}
	return Observation{Histogram: s.buckets}
}

// inverse finds the quantile of a distribution.
func inverse(cdf func(float64) float64, q float64) float64 {
	low, high := 1e-6, 1e4
	for range 100 {
		if mid := math.Sqrt(low * high); cdf(mid) < q {
			low = mid
		} else {
			high = mid
		}
	}
	return high
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
