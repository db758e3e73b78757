package transport

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar/internal/deadline"
)

type idempotentKey struct{}

// WithIdempotent marks the gRPC calls made with the context as safe to repeat. Without it they are
// repeated only when they reached no server, or when the method's idempotency_level in the .proto
// file is IDEMPOTENT or NO_SIDE_EFFECTS.
func WithIdempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

type conn struct {
	t      *Transport
	name   string
	once   sync.Once         // of start, which makes what follows
	invoke grpc.UnaryInvoker // Options.Unary around call
	open   grpc.Streamer     // Options.Stream around stream
}

// Conn returns a connection to a target for generated gRPC clients, named as the host of a URL is.
// It may be used concurrently and needs no closing. Errors carry a gRPC code and work with
// errors.Is: ErrOpen, ErrNoInstances, context.DeadlineExceeded, context.Canceled. It connects with
// the first call. As with grpc-go, the caller of a stream must receive until an error, or end its
// context.
func (t *Transport) Conn(service string) grpc.ClientConnInterface {
	return &conn{t: t, name: service}
}

func (c *conn) start() {
	c.t.once.Do(c.t.start)
	c.invoke, c.open = c.call, c.stream
	for _, around := range slices.Backward(c.t.opts.Unary) {
		next := c.invoke
		c.invoke = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
			return around(ctx, method, req, reply, cc, next, opts...)
		}
	}
	for _, around := range slices.Backward(c.t.opts.Stream) {
		next := c.open
		c.open = func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return around(ctx, desc, cc, method, next, opts...)
		}
	}
}

func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c.once.Do(c.start)
	return c.invoke(ctx, method, args, reply, nil, opts...)
}

// NewStream opens a stream under balancer and breaker, and tries another instance until it has
// reached one. It has only the deadline of ctx.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.once.Do(c.start)
	return c.open(ctx, desc, nil, method, opts...)
}

// prepare makes of into a call without deadline and span.
func (c *conn) prepare(ctx context.Context, method string, into *rpcCall) error {
	tg, err := c.t.target(c.name, false)
	if err != nil {
		return &callError{text: err.Error(), cause: err, code: codes.Unavailable}
	}
	into.method, into.t, into.tg, into.proto, into.ctx = method, c.t, tg, overGRPC, ctx
	into.identify()
	return nil
}

// unary is a call with one request and one answer.
type unary struct {
	rpcCall
	peer    peer.Peer   // stays empty when the call reached no server
	trailer metadata.MD // of the last attempt
	first   hop         // of the first attempt
}

// hop is the context of an attempt with the deadline for the callee, answerTime earlier.
type hop struct {
	context.Context
	deadline time.Time
}

// Under is for package deadline: this context ends with that one.
func (h *hop) Under() context.Context { return h.Context }

// Deadline rounds the remaining time. grpc-go sends it in microseconds, and a header that always
// differs would push all others out of the connection's header table.
func (h *hop) Deadline() (time.Time, bool) {
	now := time.Now()
	left := h.deadline.Sub(now)
	for step := 10 * time.Millisecond; step >= time.Millisecond; step /= 10 {
		if left > 100*step {
			return now.Add(left.Truncate(step)), true
		}
	}
	return h.deadline, true
}

func (c *conn) call(ctx context.Context, method string, args, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
	u := new(unary)
	err := c.prepare(ctx, method, &u.rpcCall)
	if err != nil {
		return err
	}
	u.args = args
	u.again = !u.alone && (ctx.Value(idempotentKey{}) != nil || u.tg.idempotent(method))
	u.startRPCSpan()
	u.open(false)
	var h *hedge
	message, _ := reply.(proto.Message)
	if u.tg.hedges != nil && u.again && message != nil && !ownAnswer(opts) {
		h = u.tg.hedges.of(http.MethodPost, method)
	}
	all := u.options(opts)
	for {
		if h != nil && u.attempts == 0 {
			err = u.hedged(h, args, message, opts)
		} else {
			err = u.try(args, reply, all)
		}
		pause, ok := u.shouldRetry(err)
		if !ok {
			break
		}
		if err = u.wait(pause); err != nil {
			break
		}
	}
	if h != nil && err == nil {
		h.took(u.t.now() - u.began)
	}
	if err == nil {
		u.finish(nil)
		return nil
	}
	instead := u.insteadOf(err, reply, opts)
	u.finish(err)
	return instead
}

func (u *unary) options(opts []grpc.CallOption) []grpc.CallOption {
	all := make([]grpc.CallOption, len(opts), len(opts)+3)
	copy(all, opts)
	return append(all, grpc.Peer(&u.peer), grpc.Trailer(&u.trailer), &u.option)
}

// idempotent reports whether the descriptor of a gRPC method says that it may be repeated.
func (t *target) idempotent(method string) bool {
	if safe, ok := t.methods.Load(method); ok {
		return safe.(bool)
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	safe := false
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err == nil {
		if o, ok := d.Options().(*descriptorpb.MethodOptions); ok {
			safe = o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
		}
	}
	t.methods.Store(method, safe)
	return safe
}

func (u *unary) try(args, reply any, opts []grpc.CallOption) error {
	if err := u.begin(); err != nil {
		return err
	}
	return u.send(args, reply, opts)
}

// send is try for an attempt that has begun.
func (u *unary) send(args, reply any, opts []grpc.CallOption) error {
	defer u.in.release()
	to, err := u.connection()
	if err != nil {
		u.record(failure, 0)
		return err
	}
	ctx, cancel := u.limit()
	defer cancel()
	u.peer, u.trailer = peer.Peer{}, nil
	err = to.Invoke(ctx, u.method, args, reply, opts...)
	if err == nil {
		u.record(success, u.t.now()-u.started)
		return nil
	}
	u.note(u.trailer)
	reached := u.peer.Addr != nil
	out := u.classify(err, reached)
	u.record(out, u.t.now()-u.started)
	return u.explain(err, reached, out)
}

// limit returns the context of an attempt. It has the call's deadline or, while another attempt is
// possible, an earlier one.
func (u *unary) limit() (context.Context, context.CancelFunc) {
	now, parent := u.started, u.traced()
	until, inherited := u.deadline, u.inherited
	if own := u.tg.set.Retry.AttemptTimeout; own > 0 && u.mayRepeat(now) && (until == 0 || now+own < until) {
		until, inherited = now+own, false
		u.until = until
	}
	if until == 0 {
		return parent, func() {}
	}
	h := &u.first
	if u.attempts > 1 { // the first attempt's may still be in use
		h = new(hop)
	}
	h.Context, h.deadline = parent, u.t.began.Add(max(until-answerTime, now+time.Millisecond))
	if inherited {
		return h, func() {}
	}
	at := u.t.began.Add(until)
	if u.local.grpc != nil {
		l := new(deadline.Limit) // waits for less than package context
		h.Context = l.Start(parent, at)
		return h, func() { l.Cancel(nil) }
	}
	ctx, cancel := context.WithDeadline(parent, at)
	h.Context = ctx
	return h, cancel
}

// shouldRetry decides whether the attempt is made again, and after what pause.
func (u *unary) shouldRetry(err error) (time.Duration, bool) {
	if err == nil || errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		return 0, false
	}
	switch reached := u.peer.Addr != nil; status.Code(err) {
	case codes.Unavailable:
		if reached && !u.again && !u.full {
			return 0, false
		}
	case codes.DeadlineExceeded:
		if !u.again {
			return 0, false
		}
	default:
		return 0, false
	}
	asked := time.Duration(-1)
	if v := u.trailer.Get("grpc-retry-pushback-ms"); len(v) > 0 {
		ms, err := strconv.ParseInt(v[0], 10, 32)
		if err != nil || ms < 0 {
			return 0, false // the server says: do not
		}
		asked = time.Duration(ms) * time.Millisecond
	}
	return u.repeat(asked)
}
