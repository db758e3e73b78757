package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// flight is one call under way, as a member of flights.
type flight struct {
	rpc        bool
	name       string // of an RPC: the full method; of a request: the path
	method     string // of a request
	cancel     context.CancelFunc
	prev, next *flight
}

func (f *flight) String() string {
	if f.rpc {
		return f.name
	}
	return f.method + " " + f.name
}

// flights are the calls under way, over the network and within the process: a
// ring through the calls themselves, so that counting allocates nothing.
type flights struct {
	mu     sync.Mutex
	ring   flight // its next is the first, its prev the last
	n      int
	closed bool
	idle   chan struct{} // closed when n falls to 0; nil when nobody waits
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
	if fs.n--; fs.n == 0 && fs.idle != nil {
		close(fs.idle)
		fs.idle = nil
	}
}

// setCancel changes what cut calls for f.
func (fs *flights) setCancel(f *flight, cancel context.CancelFunc) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.cancel = cancel
}

// count is how many calls are under way.
func (fs *flights) count() float64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return float64(fs.n)
}

// wait returns true once no call is under way, false when ctx ends first.
func (fs *flights) wait(ctx context.Context) bool {
	fs.mu.Lock()
	if fs.n == 0 {
		fs.mu.Unlock()
		return true
	}
	if fs.idle == nil {
		fs.idle = make(chan struct{})
	}
	idle := fs.idle
	fs.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return false
	}
}

// close lets no further call in and cancels those under way.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	var cancels []context.CancelFunc
	for f := range fs.all() {
		cancels = append(cancels, f.cancel)
	}
	fs.mu.Unlock()
	for _, cancel := range cancels { // may run anything, so not under the lock
		cancel()
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
func (s *Server) Busy() []string { return s.flights.describe() }

func (fs *flights) describe() []string {
	var requests, rpcs []string
	fs.mu.Lock()
	for f := range fs.all() {
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
