package transport

import (
	"sync"
	"time"
)

// BreakerState is the state of a target's breaker.
type BreakerState string

// The states. HalfOpen begins when the recovery timeout has passed, even if nobody probes yet.
const (
	Closed   BreakerState = "closed"
	HalfOpen BreakerState = "half-open"
	Open     BreakerState = "open"
)

// outcome is what an attempt says about the target.
type outcome uint8

const (
	neutral outcome = iota // nothing: the caller gave up, or nothing was sent
	success
	failure
)

// transition is what an outcome did to the breaker.
type transition uint8

const (
	unchanged transition = iota
	opened
	reopened // by a probe that failed
	closed
)

// breaker counts failed attempts in a row. Times are durations since the transport was made.
// gobreaker's does not tell when the next probe may go (OpenError.RetryAfter), turns half-open only
// when somebody asks (the gauge would be wrong), and waits for ever for the outcome of a probe.
type breaker struct {
	threshold int
	recovery  time.Duration

	mu       sync.Mutex
	round    uint32 // grows with each change: what was permitted before it no longer counts
	failures int    // in a row, while closed
	open     bool   // open or half-open
	until    time.Duration
	probing  bool
	probe    time.Duration // when the probe began

	trips    int           // since it was closed
	tripped  time.Duration // when it opened last
	expected time.Duration // when an instance is next asked for its health; 0 when none is
}

// permit allows one attempt, which record ends.
type permit struct {
	round uint32
	probe bool
}

// acquire permits an attempt, or says after how long a probe may be made.
func (b *breaker) acquire(now time.Duration) (p permit, wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return permit{round: b.round}, 0, true
	case now < b.until:
		return permit{}, b.next(now) - now, false
	case b.probing && now < b.probe+b.recovery:
		return permit{}, 0, false
	}
	// Half-open, and nobody probes, or the probe has hung for a whole recovery timeout.
	b.round++
	b.probing, b.probe = true, now
	return permit{round: b.round, probe: true}, 0, true
}

// record counts the outcome of a permitted attempt.
func (b *breaker) record(p permit, out outcome, now time.Duration) transition {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.round != b.round {
		return unchanged
	}
	switch {
	case out == neutral:
		b.probing = false
	case out == success && p.probe:
		b.open, b.probing, b.failures, b.trips = false, false, 0, 0
		b.round++
		return closed
	case out == success:
		b.failures = 0
	case p.probe:
		b.trip(now)
		return reopened
	default:
		b.failures++
		if b.failures >= b.threshold {
			b.trip(now)
			return opened
		}
	}
	return unchanged
}

func (b *breaker) trip(now time.Duration) {
	b.open, b.probing, b.failures = true, false, 0
	b.until = now + b.recovery
	b.trips++
	b.tripped = now
	b.round++
}

// expect says when an instance is next asked for its health; 0 is never.
func (b *breaker) expect(at time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = at
}

// next is when the next probe may be made: after the recovery timeout, or as soon as an instance has
// said that it is ready. b.mu must be held.
func (b *breaker) next(now time.Duration) time.Duration {
	if b.expected == 0 {
		return b.until
	}
	return min(max(b.expected, b.tripped+growing(b.trips, b.recovery), now), b.until)
}

// recover lets the next attempt probe at once, because an instance says that it is ready. When such
// attempts fail all the same, that is believed after 1 s twice, as a server that was stopped first has
// a queue to get rid of, then after 2 s, 4 s and so on.
func (b *breaker) recover(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && now >= b.tripped+growing(b.trips, b.recovery) {
		b.until = min(b.until, now)
	}
}

// growing is how long after the nth failure in a row a good health is believed.
func growing(n int, most time.Duration) time.Duration {
	return min(probeEvery<<min(max(n-2, 0), 10), most)
}

// probeNow lets the next attempt probe at once, without waiting for the recovery timeout.
func (b *breaker) probeNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = 0
}

func (b *breaker) state(now time.Duration) BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return Closed
	case now < b.until:
		return Open
	}
	return HalfOpen
}
