package analysis

import (
	"errors"
	"math"
)

// evidence is an e-process against a hypothesis: a mixture over bets of different sizes, and over
// the interval in which each begins.
type evidence struct {
	Bets   int       // intervals in which there was a bet
	Active []float64 // the capital of each bet that has begun
	Best   float64   // the greatest value so far, which is what Ville's inequality is about
}

// mostCapital keeps capital finite, as JSON requires. It only reduces evidence.
const mostCapital = 1e300

func newEvidence() *evidence { return &evidence{Best: 1} }

// sample is one interval: calls and bad calls of canary and stable.
type sample struct{ nc, kc, ns, ks float64 }

// add bets on an interval. Each of thetas is a pair of rates, canary's and stable's, chosen without
// knowledge of s.kc and s.ks. The hypothesis is the half-plane on the other side of the line pc =
// ps+delta. The number of pairs must be the same in each call.
func (e *evidence) add(s sample, delta float64, thetas ...[2]float64) {
	if s.nc == 0 {
		return
	}
	if len(e.Active) != len(thetas) {
		e.Active = make([]float64, len(thetas))
	}
	e.Bets++
	begins, total := capital(e.Bets)
	for i, theta := range thetas {
		capital := e.Active[i] + begins/float64(len(thetas))
		e.Active[i] = min(mostCapital, capital*math.Exp(min(700, logRatio(s, theta[0], theta[1], delta))))
		total += e.Active[i]
	}
	e.Best = max(e.Best, min(mostCapital, total))
}

// capital divides 1 among all intervals t = 1, 2, … in which a bet can begin: it returns what
// begins in t, and what is left for later ones.
func capital(t int) (begins, left float64) {
	if t == 1 {
		return 0.75, 0.25
	}
	return 0.25 / (float64(t) * float64(t-1)), 0.25 / float64(t)
}

// logRatio is the logarithm of an interval's likelihood under (tc, ts) divided by that under the
// nearest point of the line pc = ps+delta.
func logRatio(s sample, tc, ts, delta float64) float64 {
	qs := nearest(s.nc, s.ns, tc, ts, delta)
	qc := inside(qs + delta)
	return weigh(s.kc, tc/qc) + weigh(s.nc-s.kc, (1-tc)/(1-qc)) + weigh(s.ks, ts/qs) + weigh(s.ns-s.ks, (1-ts)/(1-qs))
}

// weigh is n·ln(ratio), 0 when nothing happened.
func weigh(n, ratio float64) float64 {
	if n == 0 {
		return 0
	}
	return n * math.Log(ratio)
}

// nearest returns the stable rate x for which nc·KL(tc‖x+delta) + ns·KL(ts‖x) is least. The
// function is convex and its derivative changes sign between ts and tc-delta: Newton's method
// there, bisection where that leaves it.
func nearest(nc, ns, tc, ts, delta float64) float64 {
	if ns == 0 {
		return ts
	}
	if delta == 0 {
		return (nc*tc + ns*ts) / (nc + ns)
	}
	low := max(min(ts, tc-delta), tiny, tiny-delta)
	high := min(max(ts, tc-delta), 1-tiny, 1-tiny-delta)
	x := (nc*(tc-delta) + ns*ts) / (nc + ns)
	for range 60 {
		if !(x > low && x < high) {
			x = low + (high-low)/2
		}
		vc, vs := (x+delta)*(1-x-delta), x*(1-x)
		slope := nc*(x+delta-tc)/vc + ns*(x-ts)/vs
		if slope > 0 {
			high = x
		} else {
			low = x
		}
		// The curvature of KL at the point that it is measured from, which is positive.
		step := slope / (nc*curve(tc, x+delta) + ns*curve(ts, x))
		if math.Abs(step) < 1e-14 || high-low < 1e-15 {
			break
		}
		x -= step
	}
	return x
}

// curve is the second derivative of KL(t‖q) by q.
func curve(t, q float64) float64 { return t/(q*q) + (1-t)/((1-q)*(1-q)) }

// tiny keeps rates away from 0 and 1, where nothing could be lost by a bet.
const tiny = 1e-7

// rate estimates a rate from k hits among n, never 0 or 1 (Krichevsky and Trofimov's estimate).
func rate(k, n float64) float64 { return inside((k + 0.5) / (n + 1)) }

// known is an estimate of stable's rate from n calls. If stable has no calls in this interval, as
// after the switch of a blue-green release, the estimate stands for it, moved by three standard
// errors to the side with less evidence.
func known(ts, n, ns, side float64) float64 {
	if ns > 0 {
		return ts
	}
	return inside(ts + side*3*math.Sqrt(ts*(1-ts)/(n+1)))
}

func inside(p float64) float64 { return min(max(p, tiny), 1-tiny) }

// worse returns bets that the canary's rate is above stable's rate ts + delta, by the least that
// matters to 30 times that.
func worse(ts, delta, least float64) [][2]float64 {
	out := make([][2]float64, 0, 4)
	for lift := least; len(out) < 4; lift *= math.Sqrt(10) {
		tc := ts + delta + lift
		if tc >= 1 {
			tc = inside((ts + delta + 1) / 2)
		}
		out = append(out, [2]float64{tc, ts})
	}
	return out
}

// better bets that the canary's rate is tc when stable's is ts, if that is below ts + delta.
func (e *evidence) better(s sample, delta, tc, ts float64) {
	if tc < ts+delta {
		e.add(s, delta, [2]float64{tc, ts})
	}
}

func (e *evidence) check() error {
	if e == nil || e.Bets < 0 || !(e.Best >= 1 && e.Best <= mostCapital) || len(e.Active) > 16 {
		return errors.New("evidence: expected MarshalJSON's output")
	}
	for _, a := range e.Active {
		if !(a >= 0 && a <= mostCapital) {
			return errors.New("evidence: expected MarshalJSON's output")
		}
	}
	return nil
}
