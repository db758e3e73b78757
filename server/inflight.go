package server

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/kaptar/kaptar/internal/deadline"
)

// flight is one call under way, as a member of flights.
type flight struct {
	limit  *deadline.Limit // of its context
	x      *exchange       // nil for an RPC
	method string          // of a request
	name   string          // of an RPC: the full method; of a request: the path
	stream bool            // ends when the server stops

	listed     bool // in flights, between these two
	prev, next *flight
}

// cut ends the context and takes away what the handler may be waiting for. Of an RPC it is the
// context alone: grpc-go takes the stream from the handler when the connection goes.
func (f *flight) cut() {
	f.limit.Cancel(errCut)
	if f.x != nil {
		f.x.cut()
	}
}

// flights are the calls under way, over the network and within the process.
type flights struct {
	mu       sync.Mutex
	last     *flight // a list through flight.prev
	n        int     // its length
	stopping bool
	closed   bool
	idle     chan struct{} // closed when the last has gone; nil when nobody waits
}

// add takes f in, unless the server has shut down.
func (fs *flights) add(f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return false
	}
	if f.listed, f.prev = true, fs.last; f.prev != nil {
		f.prev.next = f
	}
	fs.last = f
	fs.n++
	return true
}

// remove takes out those that are still there.
func (fs *flights) remove(done ...*flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range done {
		fs.unlink(f)
	}
	if fs.idle != nil && fs.n == 0 {
		close(fs.idle)
		fs.idle = nil
	}
}

// unlink takes f out if it is in; the caller holds mu.
func (fs *flights) unlink(f *flight) {
	if !f.listed {
		return
	}
	if f.prev != nil {
		f.prev.next = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		fs.last = f.prev
	}
	f.listed, f.prev, f.next = false, nil, nil
	fs.n--
}

// stream marks f as a call that ends when the server stops, which may be now.
func (fs *flights) stream(f *flight) {
	fs.mu.Lock()
	f.stream = true
	stopping := fs.stopping
	fs.mu.Unlock()
	if stopping {
		f.limit.Cancel(ErrStopping)
	}
}

// stop ends the contexts of all streams, also of those that begin later.
func (fs *flights) stop() {
	fs.mu.Lock()
	fs.stopping = true
	fs.mu.Unlock()
	for _, f := range fs.list(isStream) { // may run anything, so not under the lock
		f.limit.Cancel(ErrStopping)
	}
}

// dropStreams cuts the streams that are still there, and waits for them no longer.
func (fs *flights) dropStreams() {
	streams := fs.list(isStream)
	fs.remove(streams...)
	for _, f := range streams {
		f.cut()
	}
}

// close lets no further call in and ends those under way.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	for _, f := range fs.list(anyFlight) {
		f.limit.Cancel(errCut)
	}
}

// wait returns a channel that is closed once no call is under way. It may be called once.
func (fs *flights) wait() <-chan struct{} {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	idle := make(chan struct{})
	if fs.n == 0 {
		close(idle)
	} else {
		fs.idle = idle
	}
	return idle
}

// count is how many calls are under way.
func (fs *flights) count() float64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return float64(fs.n)
}

func anyFlight(*flight) bool  { return true }
func isStream(f *flight) bool { return f.stream }
func hasEnd(f *flight) bool   { return !f.stream }

// list returns the calls under way that want holds for.
func (fs *flights) list(want func(*flight) bool) (list []*flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := fs.last; f != nil; f = f.prev {
		if want(f) {
			list = append(list, f)
		}
	}
	return list
}

// Busy says what the server is working on, as in "2 HTTP requests: GET /slow" and "1 RPC:
// /user.v1.UserService/Watch"; empty when idle.
func (s *Server) Busy() []string { return s.flights.describe(anyFlight) }

func (fs *flights) describe(want func(*flight) bool) []string {
	var requests, rpcs []string
	for _, f := range fs.list(want) {
		if f.x != nil {
			requests = append(requests, f.method+" "+(&url.URL{Path: f.name}).EscapedPath()) // it goes to a terminal
		} else {
			rpcs = append(rpcs, f.name)
		}
	}
	return append(countNames("HTTP request", requests), countNames("RPC", rpcs)...)
}

func countNames(what string, names []string) []string {
	const most = 5
	n := len(names)
	switch n {
	case 0:
		return nil
	case 1:
	default:
		what += "s"
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return []string{fmt.Sprintf("%d %s: %s", n, what, strings.Join(names, ", "))}
}
