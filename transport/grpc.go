package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar/telemetry"
)

type idempotentKey struct{}

// WithIdempotent marks the gRPC calls made with the context as safe to repeat. Without it they are repeated only when they
// reached no server, or when the method's idempotency_level in the .proto file is IDEMPOTENT or NO_SIDE_EFFECTS.
func WithIdempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

// conn is the gRPC face of one target.
type conn struct {
	t    *Transport
	name string
	safe sync.Map // method → whether its descriptor says that it may be repeated
}

// Conn returns a connection to a target for generated gRPC clients, named as the host of a URL is. It may be used
// concurrently and needs no closing. Errors carry a gRPC code and work with errors.Is: ErrOpen, ErrNoInstances,
// context.DeadlineExceeded, context.Canceled. Nothing happens before the first call.
func (t *Transport) Conn(service string) grpc.ClientConnInterface {
	return &conn{t: t, name: service}
}

// rpc is a unary call.
type rpc struct {
	call
	method  string
	peer    peer.Peer   // stays empty when the call reached no server
	trailer metadata.MD // of the last attempt
}

// Invoke implements grpc.ClientConnInterface.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	tg, err := c.t.target(c.name, false)
	if err != nil {
		return &callError{text: err.Error(), cause: err, code: codes.Unavailable}
	}
	r := &rpc{method: method, call: call{t: c.t, tg: tg, proto: overGRPC, ctx: ctx, again: c.repeatable(ctx, method)}}
	r.startRPCSpan(method)
	r.open(false)
	r.ctx = inject(r.ctx)
	all := make([]grpc.CallOption, len(opts), len(opts)+2)
	copy(all, opts)
	all = append(all, grpc.Peer(&r.peer), grpc.Trailer(&r.trailer))
	for {
		err = r.try(args, reply, all)
		pause, ok := r.verdict(err)
		if !ok {
			break
		}
		if err = r.wait(pause); err != nil {
			break
		}
	}
	code := r.done(err)
	r.endRPCSpan(code, err)
	return err
}

// repeatable reports whether a call that may have reached a server may be made again.
func (c *conn) repeatable(ctx context.Context, method string) bool {
	if ctx.Value(idempotentKey{}) != nil {
		return true
	}
	if safe, ok := c.safe.Load(method); ok {
		return safe.(bool)
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	safe := false
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err == nil {
		if o, ok := d.Options().(*descriptorpb.MethodOptions); ok {
			safe = o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
		}
	}
	c.safe.Store(method, safe)
	return safe
}

// try makes one attempt.
func (r *rpc) try(args, reply any, opts []grpc.CallOption) error {
	if err := r.begin(); err != nil {
		return err
	}
	defer r.in.release()
	to, err := r.connection()
	if err != nil {
		r.settle(failure, 0)
		return err
	}
	ctx, cancel := r.limit()
	defer cancel()
	r.peer, r.trailer = peer.Peer{}, nil
	err = to.Invoke(ctx, r.method, args, reply, opts...)
	r.settle(r.judge(err, r.peer.Addr != nil), r.t.now()-r.started)
	return r.explain(err, r.peer.Addr != nil)
}

// connection returns where the attempt goes: to this process, or over the network.
func (c *call) connection() (grpc.ClientConnInterface, error) {
	if local := c.tg.local.get(c.in.ID).grpc; local != nil {
		return local, nil
	}
	to, err := c.in.grpcConn(c.t.dialGRPC)
	if err != nil {
		return nil, c.tg.fail(codes.Unavailable, c.in.ID, err)
	}
	return to, nil
}

// limit returns the context of an attempt, with the call's deadline or, while another attempt is possible, an earlier one.
func (r *rpc) limit() (context.Context, context.CancelFunc) {
	now := r.t.now()
	deadline, inherited := r.deadline, r.inherited
	if own := r.tg.set.Retry.AttemptTimeout; own > 0 && r.mayRepeat(now) && (deadline == 0 || now+own < deadline) {
		deadline, inherited = now+own, false
	}
	if deadline == 0 || inherited {
		return r.ctx, func() {}
	}
	return context.WithDeadline(r.ctx, r.t.began.Add(deadline))
}

// judge says what an error tells about the target.
func (c *call) judge(err error, reached bool) outcome {
	if err == nil {
		return success
	}
	if c.cancelled() {
		return neutral
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return failure
	case codes.Internal, codes.ResourceExhausted:
		if !reached { // made on this side: a message that cannot be marshalled, or is too large
			return neutral
		}
		return failure
	}
	return success
}

// explain gives errors of this side the target's name and a cause for errors.Is; a server's own error stays what it is.
func (c *call) explain(err error, reached bool) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	cause := err
	switch code := st.Code(); {
	case code == codes.Canceled && c.cancelled():
		cause = fmt.Errorf("%w: %w", context.Canceled, err)
	case code == codes.DeadlineExceeded:
		cause = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case code == codes.Unavailable && !reached:
	default:
		return err
	}
	return &callError{text: fmt.Sprintf("transport: %s: %s: %s", c.tg.name, c.in.ID, st.Message()), cause: cause, code: st.Code()}
}

// verdict decides whether the attempt is repeated.
func (r *rpc) verdict(err error) (time.Duration, bool) {
	if err == nil || errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		return 0, false
	}
	reached := r.peer.Addr != nil
	switch status.Code(err) {
	case codes.Unavailable:
		if reached && !r.again {
			return 0, false
		}
	case codes.DeadlineExceeded:
		if !r.again {
			return 0, false
		}
	default:
		return 0, false
	}
	asked := time.Duration(-1)
	if v := r.trailer.Get("grpc-retry-pushback-ms"); len(v) > 0 {
		ms, err := strconv.ParseInt(v[0], 10, 32)
		if err != nil || ms < 0 {
			return 0, false // the server says: do not
		}
		asked = time.Duration(ms) * time.Millisecond
	}
	return r.repeat(asked)
}

// done counts the call and returns the name of its code.
func (c *call) done(err error) string {
	took := c.t.now() - c.began
	if errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		c.tg.metrics.failed(overGRPC, word(err), took)
		return codes.Unavailable.String()
	}
	code := status.Code(err)
	c.tg.metrics.grpc(code, took)
	return code.String()
}

// inject adds the trace headers to the outgoing metadata.
func inject(ctx context.Context) context.Context {
	var pairs [4]string
	n := 0
	telemetry.Inject(ctx, func(key, value string) {
		if n < len(pairs) {
			pairs[n], pairs[n+1] = key, value
			n += 2
		}
	})
	if n == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs[:n]...)
}

// dialGRPC makes the connection to one instance. All policy is the engine's, so grpc-go's retries and
// service configuration are off. It goes on dialling an instance that is down about once a second, so that
// the breaker's probe finds a connection when there can be one.
func dialGRPC(address string) (*grpc.ClientConn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAlive, Timeout: 10 * time.Second}),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	)
}
