package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/telemetry"
)

// Limit is how much a server works on at a time. The zero value has the defaults; the tags are for
// package config.
type Limit struct {
	// Max is the highest that the limit of requests and unary RPCs at a time may grow to; default
	// 1,000, negative means no limit. The package comment says how it follows the latency.
	Max int `config:"max" default:"1000" help:"most requests and RPCs at a time; the limit below it follows the latency; -1 for none"`
	// Wait is how long a call may wait for its turn before it is refused; default 100 ms.
	Wait time.Duration `config:"wait" default:"100ms" help:"longest that a request waits for its turn before it is refused with 503"`
	// Hold is how long the answer to a request that is refused for want of room, here or further on, is
	// kept back. A client that does not heed Retry-After is slowed down by it, and leaves the processors
	// to what was accepted; between services it would only be a delay. So the answer does not have the mark
	// by which services tell such refusals. Default: none.
	Hold time.Duration `config:"hold" default:"0s" help:"how long a refusal is kept back, to slow down clients that come again at once; default of a gateway: 1s"`
	// Connections is how many each port serves at a time; more wait to be accepted, while those that
	// are idle, or whose request does not come, are closed. While one client, an address or of IPv6 a
	// /64, holds more than a quarter of them, only its own are. Default: half of the descriptors that
	// the process may have, and three quarters for all servers in it; negative means any number.
	Connections int `config:"connections" default:"0" help:"connections to each port at a time; 0 for half of the descriptors that the process may have, -1 for any number"`
}

// Priority says which calls wait behind which when a server has more to do than it has room for.
type Priority = limit.Priority

// The priorities, for Options.Priority. When the queue is full, calls that are less important make
// room first.
const (
	Normal    = limit.Normal
	Critical  = limit.Critical  // let in before all others
	Sheddable = limit.Sheddable // refused instead of waiting
)

// largeAnswer is how many bytes of an answer a client may keep us waiting with. What remains of a
// larger one, or of a file, is written outside of the limit.
const largeAnswer = 64 << 10

const overloaded = "the service has more to do than it can; try again later"

// enter waits for the request's turn, and answers it if that does not come.
func (x *exchange) enter(ctx context.Context) bool {
	s := x.server
	why := s.limiter.Acquire(ctx, x.start, &x.slot, func() Priority { return s.priority(s.lookUp(x.req)) })
	if why == "" {
		return true
	}
	s.metrics.refused.WithLabelValues(s.metrics.service, string(why)).Inc()
	if why != limit.Expired { // which its context answers
		x.Header().Set("Retry-After", "1")
		x.Header().Set(limit.Header, string(why))
		x.hold()
		x.fail(Problem{Status: http.StatusServiceUnavailable, Detail: overloaded})
	}
	return false
}

// hold keeps a refusal back, outside of the limit.
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

// leave gives the slot back of a call that may now take as long as it likes.
func (x *exchange) leave() { x.slot.Release(x.start, nil, false) }
func (c *call) leave()     { c.slot.Release(c.start, nil, false) }

func (s *Server) priority(route string) Priority {
	if s.opts.Priority == nil {
		return Normal
	}
	return s.opts.Priority(route)
}

// counts reports whether how long x took is a measurement, and whether a good one.
func (x *exchange) counts() (measured, ok bool) {
	ok = x.status < 400
	return ok || errors.Is(x.req.Context().Err(), context.DeadlineExceeded), ok
}

// watchLimit tells what the limit is and does.
func (m *metrics) watchLimit(reg prometheus.Registerer, limiter func() *limit.Limiter) {
	gauge := func(name, help string, value func(*limit.Limiter) float64) {
		telemetry.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"service": m.service},
		}, func() float64 { return value(limiter()) }))
	}
	gauge("server_limit", "How many calls may be worked on at a time, as found from their latency.", (*limit.Limiter).Limit)
	gauge("server_queue_length", "Calls that wait for their turn.", (*limit.Limiter).Waiting)
}
