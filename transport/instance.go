package transport

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/discovery"
)

const (
	latencyMemory  = time.Second // time constant of the average latency
	failurePenalty = time.Second // what a failure counts as, and an instance not heard of while calls wait for it
	latencyFloor   = 50 * time.Microsecond

	ejectAfter = 5 // failures in a row
	ejectFor   = 30 * time.Second
	ejectMost  = 300 * time.Second
)

// instance is what a target remembers of one. Times are durations since the transport was made.
type instance struct {
	discovery.Instance

	inFlight atomic.Int64
	latency  atomic.Int64 // peak EWMA in nanoseconds; 0: no answer yet
	heard    atomic.Int64 // when latency was last set
	ejected  atomic.Int64 // until when it is left out

	mu        sync.Mutex // guards what follows, and changes of the above but inFlight
	failures  int        // in a row
	ejections int        // in a row, for the length of the next one
	ejectedAt time.Duration

	gone   atomic.Bool // no longer listed
	connMu sync.Mutex
	conn   *grpc.ClientConn // nil until the first call, and after the last one of an instance that is gone
}

// cost is what the balancer compares: expected latency times the calls that would be in flight.
func (in *instance) cost(now time.Duration) float64 {
	waiting := in.inFlight.Load()
	latency := float64(in.latency.Load())
	switch {
	case latency == 0 && waiting > 0:
		latency = float64(failurePenalty)
	case waiting == 0:
		// Only an idle instance forgets: one that holds calls and does not answer would otherwise look
		// better every second. Forgetting is what brings a failed instance its next call.
		latency *= decay(now - time.Duration(in.heard.Load()))
	}
	return max(latency, float64(latencyFloor)) * float64(waiting+1)
}

// succeeded counts an answer and how long it took; 0 leaves the latency as it is.
func (in *instance) succeeded(now, took time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.failures = 0
	if took > 0 {
		in.learn(now, took)
	}
}

// failed counts a failure, and reports whether the instance should be ejected for it.
func (in *instance) failed(now, took time.Duration) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.failures++
	in.learn(now, max(took, failurePenalty))
	return in.failures >= ejectAfter
}

// learn takes a slower answer into the average at once, a faster one by and by. in.mu must be held.
func (in *instance) learn(now, took time.Duration) {
	old, next := float64(in.latency.Load()), float64(took)
	if next < old {
		w := decay(now - time.Duration(in.heard.Load()))
		next = old*w + next*(1-w)
	}
	in.latency.Store(int64(next))
	in.heard.Store(int64(now))
}

func decay(since time.Duration) float64 {
	return math.Exp(-float64(max(since, 0)) / float64(latencyMemory))
}

// eject leaves the instance out: longer each time, and as the first time again when the last
// ejection is more than ejectMost over.
func (in *instance) eject(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now-time.Duration(in.ejected.Load()) > ejectMost {
		in.ejections = 0
	}
	in.ejections++
	in.failures = 0
	in.ejectedAt = now
	in.ejected.Store(int64(now + min(ejectFor*time.Duration(in.ejections), ejectMost)))
}

// recover ends an ejection because the instance says that it is ready. After several in a row that is
// believed later each time.
func (in *instance) recover(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.isEjected(now) && now >= in.ejectedAt+growing(in.ejections, ejectMost) {
		in.ejected.Store(int64(now))
		in.failures = 0
	}
}

// leaveOut ejects an instance that says that it is not ready, until it says that it is.
func (in *instance) leaveOut(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ejectedAt = now
	in.ejected.Store(int64(now + ejectFor))
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
	if in.inFlight.Load() == 0 {
		in.closeConn()
	}
}

// grpcConn returns the connection, made by dial if there is none.
func (in *instance) grpcConn(dial func(address string) (*grpc.ClientConn, error)) (*grpc.ClientConn, error) {
	in.connMu.Lock()
	defer in.connMu.Unlock()
	if in.conn == nil {
		conn, err := dial(in.GRPC)
		if err != nil {
			return nil, err
		}
		in.conn = conn
	}
	return in.conn, nil
}

// openConn returns the connection if there is one.
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
