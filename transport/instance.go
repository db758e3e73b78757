package transport

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/discovery"
)

const (
	latencyMemory  = time.Second // time constant of the average latency
	failurePenalty = time.Second // latency of a failure, and of an instance without an answer yet while calls wait for it
	latencyFloor   = 50 * time.Microsecond

	// Idle instances are compared by their usual latency, an average in which an answer has this weight
	// and is bounded by about twice the average, so that a single slow answer counts little. Differences
	// below idleNoise or idleRatio are noise: then either is taken.
	idleWeight = 1. / 16
	idleNoise  = 5 * time.Millisecond
	idleRatio  = 2

	// A new instance has cold caches and no connections: its share grows from a tenth to the whole.
	warmUp      = 10 * time.Second
	warmUpFloor = 0.1

	forceProbe = 3 * time.Second // an idle instance without an answer for so long gets the call if it is picked

	ejectAfter = 5 // failures in a row
	ejectFor   = 30 * time.Second
	ejectMost  = 300 * time.Second
)

// instance is the state of an instance at a target. Times are durations since the transport was
// made.
type instance struct {
	ID, HTTP, GRPC string
	version        string // as discovery knows it
	metrics        *versionMetrics
	zone           string        // the registry may change it; guarded by the target's mu
	rank           uint64        // among the instances that this caller could have in its subset
	born           time.Duration // when it appeared; in the past for those that were there from the start
	stale          *atomic.Bool  // the target's: set when an ejection begins or ends

	inFlight atomic.Int64
	peak     atomic.Int64 // peak EWMA of latency in nanoseconds; 0: no answer yet
	usual    atomic.Int64 // EWMA of latency by answers
	heard    atomic.Int64 // when they were last set, at first when the instance appeared
	failures atomic.Int64 // in a row
	ejected  atomic.Int64 // until when it is left out

	mu        sync.Mutex // guards what follows, and the change of ejected
	ejections int        // in a row, for the length of the next one
	ejectedAt time.Duration

	gone   atomic.Bool // no longer listed
	connMu sync.Mutex
	conn   *grpc.ClientConn // nil until the first call, and after the last one of an instance that is gone
}

// serves reports whether the instance can be called: in this process, or at an address.
func (in *instance) serves(p protocol, local map[string]localEntry) bool {
	if p == overGRPC {
		return in.GRPC != "" || local[in.ID].grpc != nil
	}
	return in.HTTP != "" || local[in.ID].http != nil
}

// rank returns the position of an instance in the caller's own order.
func rank(caller, id string) uint64 {
	sum := sha256.Sum256([]byte(caller + "/" + id))
	return binary.BigEndian.Uint64(sum[:])
}

// same reports whether the registry still lists the instance unchanged.
func (in *instance) same(as *discovery.Instance) bool {
	return in.ID == as.ID && in.HTTP == as.HTTP && in.GRPC == as.GRPC && in.version == as.Version
}

// beats reports whether a call goes to in and not to other, after both were picked at random.
func (in *instance) beats(other *instance, now time.Duration) bool {
	warm, its := in.warmth(now), other.warmth(now)
	if mine, theirs := in.inFlight.Load(), other.inFlight.Load(); mine > 0 || theirs > 0 {
		return in.cost(now, mine, other)*its < other.cost(now, theirs, in)*warm
	}
	if cold := warm < 1 && rand.Float64() > warm; cold != (its < 1 && rand.Float64() > its) {
		return !cold
	}
	since, last := now-time.Duration(in.heard.Load()), now-time.Duration(other.heard.Load())
	if late := since > forceProbe; late != (last > forceProbe) {
		return late
	}
	worse := other.idleCost(last)
	if worse <= float64(idleNoise) || in.peak.Load() == 0 {
		return false
	}
	mine := in.idleCost(since)
	return worse > mine+float64(idleNoise) && worse > mine*idleRatio
}

// idleCost is what the balancer compares when there are no calls in flight. It decays with the time
// since the last answer, so that a failed instance gets calls again.
func (in *instance) idleCost(since time.Duration) float64 {
	usual := in.usual.Load()
	if in.failures.Load() > 0 {
		usual = int64(failurePenalty)
	}
	if usual <= int64(idleNoise) { // as it is with most: it need not be exact
		return float64(usual)
	}
	return float64(usual) * decay(since)
}

// warmth returns how much of its share an instance gets: less than 1 while it is new.
func (in *instance) warmth(now time.Duration) float64 {
	age := now - in.born
	if age >= warmUp {
		return 1
	}
	return max(warmUpFloor, float64(age)/float64(warmUp))
}

// cost is what the balancer compares when there are calls in flight: the expected latency times the
// calls in flight with this one. The latency of an instance that has not answered yet is that of
// the other.
func (in *instance) cost(now time.Duration, waiting int64, other *instance) float64 {
	latency := float64(in.peak.Load())
	switch {
	case latency == 0 && waiting > 0:
		latency = float64(failurePenalty)
	case latency == 0:
		latency = float64(other.peak.Load())
	case waiting == 0:
		// Only for an idle instance: one that has calls but does not answer must not look better
		// every second.
		latency *= decay(now - time.Duration(in.heard.Load()))
	}
	return max(latency, float64(latencyFloor)) * float64(waiting+1)
}

// succeeded counts an answer and how long it took; 0 leaves the latency as it is.
func (in *instance) succeeded(now, took time.Duration) {
	if in.failures.Load() != 0 {
		in.failures.Store(0)
	}
	if took > 0 {
		in.learn(now, took)
	}
}

// failed counts a failure, and reports whether the instance should be ejected for it.
func (in *instance) failed(now, took time.Duration) bool {
	in.peak.Store(int64(max(took, failurePenalty)))
	in.heard.Store(int64(now))
	return in.failures.Add(1) >= ejectAfter
}

// refused makes the instance expensive for a while, because it is overloaded, but does not count as
// a failure.
func (in *instance) refused(now time.Duration) {
	in.peak.Store(int64(failurePenalty))
	in.heard.Store(int64(now))
}

// learn updates the averages. A slower answer sets the peak average at once, a faster one lowers it
// gradually. Of two concurrent updates one may be lost, which an average tolerates.
func (in *instance) learn(now, took time.Duration) {
	w := decay(now - time.Duration(in.heard.Load()))
	peak, usual, next := float64(in.peak.Load()), float64(in.usual.Load()), float64(took)
	in.usual.Store(int64(usual + (min(next, 2*usual+4*float64(idleNoise))-usual)*idleWeight))
	if next < peak {
		next = peak*w + next*(1-w)
	}
	in.peak.Store(int64(next))
	in.heard.Store(int64(now))
}

func decay(since time.Duration) float64 {
	return math.Exp(-float64(max(since, 0)) / float64(latencyMemory))
}

// eject ejects the instance, for longer each time. It starts again with the shortest time when the
// last ejection ended more than ejectMost ago.
func (in *instance) eject(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now-time.Duration(in.ejected.Load()) > ejectMost {
		in.ejections = 0
	}
	in.ejections++
	in.failures.Store(0)
	in.ejectedAt = now
	in.ejected.Store(int64(now + min(ejectFor*time.Duration(in.ejections), ejectMost)))
	in.stale.Store(true)
}

// recover ends an ejection because the instance reports that it is ready. After several ejections
// in a row such a report is trusted later each time.
func (in *instance) recover(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.isEjected(now) && now >= in.ejectedAt+growing(in.ejections, ejectMost) {
		in.ejected.Store(int64(now))
		in.failures.Store(0)
		in.stale.Store(true)
	}
}

// leaveOut ejects an instance that reports that it is not ready, until it reports that it is.
func (in *instance) leaveOut(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ejectedAt = now
	in.ejected.Store(int64(now + ejectFor))
	in.stale.Store(true)
}

func (in *instance) isEjected(now time.Duration) bool { return now < time.Duration(in.ejected.Load()) }

// release ends a call; the last one of an instance that is gone closes its connection.
func (in *instance) release() {
	if in.inFlight.Add(-1) == 0 && in.gone.Load() {
		in.closeConn()
	}
}

// leave marks the instance as no longer listed. Calls under way go on.
func (in *instance) leave() {
	in.gone.Store(true)
	in.metrics.drop()
	if in.inFlight.Load() == 0 {
		in.closeConn()
	}
}

// grpcConn returns the connection to an instance, a new one if there is none.
func (t *Transport) grpcConn(tg *target, in *instance, external bool) (*grpc.ClientConn, error) {
	in.connMu.Lock()
	defer in.connMu.Unlock()
	if in.conn == nil {
		conn, err := t.dialGRPC(tg, in.GRPC, external)
		if err != nil {
			return nil, err
		}
		in.conn = conn
	}
	return in.conn, nil
}

func (in *instance) openConn() *grpc.ClientConn {
	in.connMu.Lock()
	defer in.connMu.Unlock()
	return in.conn
}

func (in *instance) closeConn() {
	in.connMu.Lock()
	conn := in.conn
	in.conn = nil
	in.connMu.Unlock()
	if conn != nil {
		_ = conn.Close() // it only fails when closed already
	}
}
