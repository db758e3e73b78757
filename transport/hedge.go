package transport

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/kaptar/kaptar/internal/route"
)

// HedgeSettings select calls that are also sent to a second instance if the first takes longer than
// usual. The first good answer counts, and the other attempt is cancelled. Only calls that may be
// repeated are hedged, once each and within the retry budget. See "The Tail at Scale" (Dean,
// Barroso, 2013).
type HedgeSettings struct {
	// Routes are patterns such as "GET /orders/{user_id}" or "/user.v1.UserService/GetUser"; default
	// none.
	Routes []string `config:"routes" help:"calls that are hedged: GET /orders/{user_id}, /user.v1.UserService/GetUser"`
	// After is how long the first attempt may take. Zero means the 95th percentile of the last 100
	// calls of the route, once there have been 20.
	After time.Duration `config:"after" default:"0s" help:"time that the first attempt has; 0s is the route's own 95th percentile"`
}

// Validate checks the patterns.
func (h HedgeSettings) Validate() error {
	_, err := parseRoutes(h.Routes)
	if err == nil && h.After < 0 {
		err = fmt.Errorf("after: %v: expected 0s or more", h.After)
	}
	return err
}

func parseRoutes(texts []string) ([]route.Pattern, error) {
	all := make([]route.Pattern, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = route.Parse(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// hedges are the hedged routes of one target.
type hedges []*hedge

type hedge struct {
	route route.Pattern
	fixed time.Duration
	usual atomic.Int64 // the 95th percentile in nanoseconds; 0: unknown

	mu    sync.Mutex
	last  [100]time.Duration // what the last calls took
	calls int
}

func newHedges(set HedgeSettings) hedges {
	routes, _ := parseRoutes(set.Routes) // those of code that has not called Validate hedge nothing
	if len(routes) == 0 {
		return nil
	}
	all := make(hedges, len(routes))
	for i, r := range routes {
		all[i] = &hedge{route: r, fixed: set.After}
	}
	return all
}

// of returns the hedge of a call, nil for none.
func (h hedges) of(method, path string) *hedge {
	for _, one := range h {
		if one.route.Match(method, path) {
			return one
		}
	}
	return nil
}

// after is how long a first attempt has; 0: for ever.
func (h *hedge) after() time.Duration {
	if h.fixed > 0 {
		return h.fixed
	}
	return time.Duration(h.usual.Load())
}

// took records the duration of a call with a good answer. If the second attempt won, it is at least
// the percentile, so that hedges do not lower that.
func (h *hedge) took(d time.Duration) {
	const often = 20
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[h.calls%len(h.last)] = d
	if h.calls++; h.fixed > 0 || h.calls%often != 0 {
		return
	}
	known := slices.Sorted(slices.Values(h.last[:min(h.calls, len(h.last))]))
	h.usual.Store(int64(known[len(known)*95/100]))
}

// beginHedge is begin for the second attempt, whose c has the first's instance.
func (c *call) beginHedge() bool {
	first, now := c.in, c.t.now()
	if c.tg.breaker.state(now) != Closed || !c.tg.budget.withdraw(now) || c.begin() != nil {
		return false
	}
	if c.in == first { // there is no other
		c.record(neutral, 0)
		c.in.release()
		return false
	}
	c.tg.metrics.inc(c.t.metrics.hedges)
	return true
}

// race runs first and, if that takes longer than after, also second. The first good answer wins;
// the other attempt is cancelled, and drop discards what second may have. It reports whether second
// has won, and returns when first has returned.
func race(after time.Duration, first, second func() (good bool), cancelFirst, cancelSecond context.CancelFunc, drop func()) bool {
	var decided atomic.Bool
	done := make(chan bool, 1)
	timer := time.AfterFunc(after, func() {
		won := second() && decided.CompareAndSwap(false, true)
		if won {
			cancelFirst()
		}
		done <- won
	})
	good := first()
	switch {
	case timer.Stop():
		cancelSecond()
		return false
	case good && decided.CompareAndSwap(false, true):
		cancelSecond()
		go func() { <-done; drop() }()
		return false
	}
	if <-done {
		return true
	}
	drop()
	return false
}

// fork returns a call for an attempt beside the one that has begun. The span stays with c.
func (c *call) fork() call {
	return call{
		t: c.t, tg: c.tg, proto: c.proto, first: c, began: c.began, deadline: c.deadline,
		inherited: c.inherited, again: c.again, principal: c.principal, wants: c.wants, attempts: c.attempts, attempt: c.attempt,
	}
}

// adopt makes what came of the second attempt that of the call.
func (c *call) adopt(second *call) {
	c.attempt, c.attempts = second.attempt, second.attempts
	c.tg.metrics.inc(c.t.metrics.hedgesWon)
	if c.span.IsRecording() {
		c.span.SetAttributes(hedgedAttr.Bool(true))
	}
}

// hedged makes the first attempt of a call, and perhaps a second.
func (c *httpCall) hedged(h *hedge) (*http.Response, error) {
	after := h.after()
	if after == 0 {
		return c.try()
	}
	if err := c.begin(); err != nil {
		return nil, err
	}
	second := &httpCall{req: c.req, sent: true, call: c.fork()}
	var resp, other *http.Response
	var err error
	parent := c.ctx
	c.ctx, c.abort = context.WithCancel(parent)
	second.ctx, second.abort = context.WithCancel(parent)
	secondWon := race(after, func() bool {
		resp, err = c.send() //nolint:bodyclose // by discard, or by the caller
		return err == nil && resp.StatusCode < 500
	}, func() bool {
		if !second.beginHedge() {
			return false
		}
		var failed error
		other, failed = second.send() //nolint:bodyclose // by discard, or by the caller
		return failed == nil && other.StatusCode < 500
	}, c.abort, second.abort, func() {
		if other != nil {
			second.discard(other)
		}
	})
	c.ctx = parent
	if !secondWon {
		if err != nil || resp.StatusCode >= 500 { // the second has ended too
			c.attempts = max(c.attempts, second.attempts)
		}
		return resp, err
	}
	if resp != nil {
		c.discard(resp)
	}
	c.adopt(&second.call)
	c.scope, c.abort, c.limit, c.upload = second.scope, second.abort, second.limit, second.upload
	return other, nil
}

// hedged is the same over gRPC.
func (u *unary) hedged(h *hedge, args any, reply proto.Message, opts []grpc.CallOption) error {
	after := h.after()
	if after == 0 {
		return u.try(args, reply, u.options(opts))
	}
	if err := u.begin(); err != nil {
		return err
	}
	second := &unary{rpcCall: rpcCall{method: u.method, args: u.args, trace: u.trace, call: u.fork()}}
	one, two := reply.ProtoReflect().New().Interface(), reply.ProtoReflect().New().Interface()
	var err, failed error
	parent := u.ctx
	ctx, cancelFirst := context.WithCancel(parent)
	u.ctx = ctx
	defer cancelFirst()
	ctx, cancelSecond := context.WithCancel(parent)
	second.ctx = ctx
	secondWon := race(after, func() bool {
		err = u.send(args, one, u.options(opts))
		return err == nil
	}, func() bool {
		if !second.beginHedge() {
			return false
		}
		failed = second.send(args, two, second.options(opts))
		return failed == nil
	}, cancelFirst, cancelSecond, cancelSecond)
	u.ctx = parent
	proto.Reset(reply)
	if secondWon {
		cancelSecond()
		proto.Merge(reply, two)
		u.adopt(&second.call)
		return nil
	}
	proto.Merge(reply, one)
	if err != nil {
		u.attempts = max(u.attempts, second.attempts)
	}
	return err
}

// ownAnswer reports whether options write to what only one attempt may write to.
func ownAnswer(opts []grpc.CallOption) bool {
	return slices.ContainsFunc(opts, func(o grpc.CallOption) bool {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
			return true
		}
		return false
	})
}
