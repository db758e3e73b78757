package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/internal/steady"
)

// Limit bounds how much a server works on at a time. The zero value means the defaults. The tags
// are for package config.
type Limit struct {
	// Max is the upper bound of the limit on concurrent requests and unary RPCs; default 1,000,
	// negative means no limit. The package comment says how the limit adapts to the latency.
	Max int `config:"max" default:"1000" help:"most requests and RPCs at a time; the limit below it follows the latency; -1 for none"`
	// Wait is how long a call may wait in the queue before it is refused; default 100 ms.
	Wait time.Duration `config:"wait" default:"100ms" help:"longest that a request waits for its turn before it is refused with 503"`
	// Hold delays the 503 answer to a request that was refused for overload, here or by a service
	// behind this one. It slows down clients that ignore Retry-After, so that the processors work on
	// what was accepted. It is meant for a gateway: other services would retry elsewhere at once, so a
	// delayed answer lacks the header by which they recognise a refusal. Default: no delay.
	Hold time.Duration `config:"hold" default:"0s" help:"how long a refusal is kept back, to slow down clients that come again at once; default of a gateway: 1s"`
	// Connections is how many connections each port serves at a time. Further ones wait to be
	// accepted, and meanwhile idle connections and those whose request does not arrive are closed.
	// While one client (an IPv4 address or an IPv6 /64) holds more than a quarter of them, only that
	// client's connections are closed. Default: half of the file descriptors that the process may
	// have; all servers of a process use at most three quarters. Negative means no limit.
	Connections int `config:"connections" default:"0" help:"connections to each port at a time; 0 for half of the descriptors that the process may have, -1 for any number"`
}

// Priority is the rank of a call when the server is overloaded.
type Priority = limit.Priority

// The priorities, for Options.Priority. When the queue is full less important calls are refused
// first.
const (
	Normal    = limit.Normal
	Critical  = limit.Critical  // admitted before all others
	Sheddable = limit.Sheddable // refused instead of waiting
)

// largeAnswer is the number of bytes of an answer during which the call counts against the limit.
// The rest of a larger answer, and a file, is written without, because the client may be slow.
const largeAnswer = 64 << 10

const overloaded = "the service has more to do than it can; try again later"

// enter admits the request, perhaps after a wait. If not, it answers it and returns false.
func (x *exchange) enter(ctx context.Context) bool {
	s := x.server
	why := s.limiter.Acquire(ctx, x.start, &x.slot, func() Priority { return s.priority(s.lookUp(x.req)) })
	if why == "" {
		return true
	}
	s.metrics.refused.WithLabelValues(s.metrics.service, string(why)).Inc()
	if why != limit.Expired { // then finish answers
		x.Header().Set("Retry-After", "1")
		x.Header().Set(limit.Header, string(why))
		x.hold()
		x.fail(Problem{Status: http.StatusServiceUnavailable, Detail: overloaded})
	}
	return false
}

// hold delays a refusal, without counting against the limit.
func (x *exchange) hold() {
	if d := x.server.opts.Limit.Hold; d > 0 && x.Header().Get(limit.Header) != "" {
		x.leave()
		steady.Sleep(x.req.Context(), d)
		x.Header().Del(limit.Header)
	}
}

// enter is the same for an RPC.
func (c *call) enter(fullMethod string) error {
	s := c.server
	s.prepare() // calls within the process need no Listen
	why := s.limiter.Acquire(c.ctx, c.start, &c.slot, func() Priority { return s.priority(fullMethod) })
	if why == "" {
		return nil
	}
	s.metrics.refused.WithLabelValues(s.metrics.service, string(why)).Inc()
	if why == limit.Expired {
		return status.FromContextError(c.ctx.Err()).Err()
	}
	_ = grpc.SetTrailer(c.ctx, metadata.Pairs(limit.Trailer, string(why))) // only fails outside of a call
	return status.Error(codes.Unavailable, overloaded)
}

// leave releases the slot of a call that no longer counts against the limit.
func (x *exchange) leave() { x.slot.Release(x.start, nil, false) }
func (c *call) leave()     { c.slot.Release(c.start, nil, false) }

func (s *Server) priority(route string) Priority {
	if s.opts.Priority == nil {
		return Normal
	}
	return s.opts.Priority(route)
}

// counts reports whether the duration of x counts as a measurement, and whether the call succeeded.
func (x *exchange) counts() (measured, ok bool) {
	ok = x.status < 400
	return ok || errors.Is(x.req.Context().Err(), context.DeadlineExceeded), ok
}
