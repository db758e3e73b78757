package server

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// flight is one call under way, as a member of flights.
type flight struct {
	rpc        bool
	name       string // of an RPC: the full method; of a request: the path
	method     string // of a request
	call       inFlight
	stream     bool // ends when the server stops
	dropped    bool // nobody waits for it any more
	prev, next *flight
}

// inFlight is what Shutdown does with a call.
type inFlight interface {
	Cancel(cause error) // ends its context
	cut()               // and takes away what it may be waiting for
}

func (f *flight) String() string {
	if f.rpc {
		return f.name
	}
	return f.method + " " + (&url.URL{Path: f.name}).EscapedPath() // it goes to a terminal
}

// flights are the calls under way, over the network and within the process: a
// ring through the calls themselves, so that counting allocates nothing.
type flights struct {
	mu       sync.Mutex
	ring     flight // its next is the first, its prev the last
	n        int
	stopping bool
	closed   bool
	idle     chan struct{} // closed when n falls to 0; nil when nobody waits
}

// add takes f in, unless the server has shut down.
func (fs *flights) add(f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return false
	}
	if fs.ring.next == nil {
		fs.ring.next, fs.ring.prev = &fs.ring, &fs.ring
	}
	f.prev, f.next = fs.ring.prev, &fs.ring
	f.prev.next, fs.ring.prev = f, f
	fs.n++
	return true
}

func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.prev.next, f.next.prev = f.next, f.prev
	if !f.dropped {
		fs.less()
	}
}

// less counts one call less; the caller holds mu.
func (fs *flights) less() {
	if fs.n--; fs.n == 0 && fs.idle != nil {
		close(fs.idle)
		fs.idle = nil
	}
}

// stream marks f as a call that ends when the server stops, which may be now.
func (fs *flights) stream(f *flight) {
	fs.mu.Lock()
	f.stream = true
	stopping := fs.stopping
	fs.mu.Unlock()
	if stopping {
		f.call.Cancel(ErrStopping)
	}
}

// stop ends the contexts of all streams, also of those that begin later.
func (fs *flights) stop() {
	fs.mu.Lock()
	fs.stopping = true
	calls := fs.calls(func(f *flight) bool { return f.stream })
	fs.mu.Unlock()
	for _, c := range calls { // may run anything, so not under the lock
		c.Cancel(ErrStopping)
	}
}

// dropStreams cuts the streams that are still there, and waits for them no longer.
func (fs *flights) dropStreams() {
	fs.mu.Lock()
	calls := fs.calls(func(f *flight) bool { return f.stream && !f.dropped })
	for f := range fs.all() {
		if f.stream && !f.dropped {
			f.dropped = true
			fs.less()
		}
	}
	fs.mu.Unlock()
	for _, c := range calls {
		c.cut()
	}
}

// calls are those that want holds for; the caller holds mu.
func (fs *flights) calls(want func(*flight) bool) (calls []inFlight) {
	for f := range fs.all() {
		if want(f) {
			calls = append(calls, f.call)
		}
	}
	return calls
}

// count is how many calls are under way.
func (fs *flights) count() float64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return float64(fs.n)
}

// wait returns a channel that is closed once no call is under way.
func (fs *flights) wait() <-chan struct{} {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.idle != nil {
		return fs.idle
	}
	idle := make(chan struct{})
	if fs.n == 0 {
		close(idle)
	} else {
		fs.idle = idle
	}
	return idle
}

// close lets no further call in and ends those under way.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	calls := fs.calls(func(*flight) bool { return true })
	fs.mu.Unlock()
	for _, c := range calls {
		c.Cancel(errCut)
	}
}

// all ranges over the calls under way; the caller holds mu.
func (fs *flights) all() func(yield func(*flight) bool) {
	return func(yield func(*flight) bool) {
		for f := fs.ring.next; f != nil && f != &fs.ring; f = f.next {
			if !yield(f) {
				return
			}
		}
	}
}

// Busy says what the server is working on, as in "2 HTTP requests: GET /slow"
// and "1 RPC: /user.v1.UserService/Watch"; empty when idle.
func (s *Server) Busy() []string {
	return s.flights.describe(func(*flight) bool { return true })
}

func (fs *flights) describe(want func(*flight) bool) []string {
	var requests, rpcs []string
	fs.mu.Lock()
	for f := range fs.all() {
		if !want(f) {
			continue
		}
		if f.rpc {
			rpcs = append(rpcs, f.String())
		} else {
			requests = append(requests, f.String())
		}
	}
	fs.mu.Unlock()
	var out []string
	if len(requests) > 0 {
		out = append(out, countNames("HTTP request", requests))
	}
	if len(rpcs) > 0 {
		out = append(out, countNames("RPC", rpcs))
	}
	return out
}

func countNames(what string, names []string) string {
	const most = 5
	n := len(names)
	if n > 1 {
		what += "s"
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return fmt.Sprintf("%d %s: %s", n, what, strings.Join(names, ", "))
}
