package transport

import (
	"sync"
	"time"
)

// BreakerState is the state of a target's breaker.
type BreakerState string

// The states. HalfOpen begins when the recovery timeout has passed, even before there is a probe.
const (
	Closed   BreakerState = "closed"
	HalfOpen BreakerState = "half-open"
	Open     BreakerState = "open"
)

// outcome is the result of an attempt for the breaker.
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

// breaker counts failed attempts in a row. Times are durations since the transport was made. It is
// not sony/gobreaker because that does not tell when the next probe is allowed
// (OpenError.RetryAfter), turns half-open only at the next call (so a gauge would be wrong), and
// waits for ever for a probe.
type breaker struct {
	threshold int
	recovery  time.Duration

	mu       sync.Mutex
	round    uint32 // grows with each change of state: attempts from before no longer count
	failures int    // in a row, while closed
	open     bool   // open or half-open
	until    time.Duration
	probing  bool
	probe    time.Duration // when the probe began

	trips    int           // since it was closed
	tripped  time.Duration // when it opened last
	expected time.Duration // when instances are next asked for their health; 0 if they are not
}

// permit allows one attempt; record must follow.
type permit struct {
	round uint32
	probe bool
}

// acquire permits an attempt, or returns how long it is until the next probe is allowed.
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
	// Half-open without a probe, or the probe has taken a whole recovery timeout.
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

// expect sets when instances are next asked for their health; 0 means never.
func (b *breaker) expect(at time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = at
}

// next returns when the next probe may be made: after the recovery timeout, or as soon as an
// instance may report that it is ready. b.mu must be held.
func (b *breaker) next(now time.Duration) time.Duration {
	if b.expected == 0 {
		return b.until
	}
	return min(max(b.expected, b.tripped+growing(b.trips, b.recovery), now), b.until)
}

// recover lets the next attempt probe at once, because an instance reports that it is ready. If
// such attempts fail, further reports are trusted after 1 s, again after 1 s (a server that was
// stopped has a queue to work off first), then after 2 s, 4 s and so on.
func (b *breaker) recover(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && now >= b.tripped+growing(b.trips, b.recovery) {
		b.until = min(b.until, now)
	}
}

// growing returns how long after the nth failure in a row a report of good health is trusted again.
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
