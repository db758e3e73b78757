package server

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/kaptar/kaptar/internal/deadline"
)

// flight is one call in progress, as an element of flights.
type flight struct {
	limit  *deadline.Limit // of its context
	x      *exchange       // nil for an RPC
	method string          // of a request
	name   string          // of an RPC: the full method; of a request: the path
	stream bool            // its context ends when Shutdown begins

	listed     bool // in flights, between these two
	prev, next *flight
}

// cut ends the context and breaks the connection that the handler may be waiting for. For an RPC it
// ends only the context: grpc-go ends the stream when the connection closes.
func (f *flight) cut() {
	f.limit.Cancel(errCut)
	if f.x != nil {
		f.x.cut()
	}
}

// flights are the calls in progress, over the network and within the process.
type flights struct {
	mu       sync.Mutex
	last     *flight // a list through flight.prev
	n        int     // its length
	stopping bool
	closed   bool
	idle     chan struct{} // closed when the last call has ended; nil while nobody waits
}

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

// remove removes calls; those that are not listed any more are ignored.
func (fs *flights) remove(done ...*flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range done {
		if !f.listed {
			continue
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
	if fs.idle != nil && fs.n == 0 {
		close(fs.idle)
		fs.idle = nil
	}
}

// stream marks f as a stream. If the server is already stopping it ends the context.
func (fs *flights) stream(f *flight) {
	fs.mu.Lock()
	f.stream = true
	stopping := fs.stopping
	fs.mu.Unlock()
	if stopping {
		f.limit.Cancel(ErrStopping)
	}
}

// stop ends the contexts of all streams, including those that begin later.
func (fs *flights) stop() {
	fs.mu.Lock()
	fs.stopping = true
	fs.mu.Unlock()
	for _, f := range fs.list(isStream) { // Cancel runs other code, so the lock is not held
		f.limit.Cancel(ErrStopping)
	}
}

// dropStreams cuts the streams that have not ended. Shutdown then no longer waits for them.
func (fs *flights) dropStreams() {
	streams := fs.list(isStream)
	fs.remove(streams...)
	for _, f := range streams {
		f.cut()
	}
}

// close refuses further calls and ends the contexts of those in progress.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	for _, f := range fs.list(anyFlight) {
		f.limit.Cancel(errCut)
	}
}

// wait returns a channel that is closed when no call is in progress. Call it at most once.
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

func (fs *flights) count() float64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return float64(fs.n)
}

func anyFlight(*flight) bool  { return true }
func isStream(f *flight) bool { return f.stream }
func hasEnd(f *flight) bool   { return !f.stream }

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

// Busy describes the calls in progress, as in "2 HTTP requests: GET /slow" and
// "1 RPC: /user.v1.UserService/Watch". It is empty when there are none.
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
