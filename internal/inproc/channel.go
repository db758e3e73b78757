package inproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/deadline"
)

// Channel is a gRPC server and the connection to it without a network between: services are
// registered on it as on a [grpc.Server], clients are made of it as of a [grpc.ClientConn]. It may
// be used by several goroutines at once. Use [NewChannel] to make one.
//
// Messages are marshalled and unmarshalled, so the two sides share no memory, and none may be
// larger than 4 MiB, gRPC's default, unless the call options MaxCallRecvMsgSize and
// MaxCallSendMsgSize say otherwise for the client's side. Outgoing metadata arrives as incoming
// metadata, the caller's deadline and cancellation end the handler's context, and the values in the
// caller's context stay with the caller. Of the call options, those for codecs, compression,
// retries and WaitForReady have no effect. A handler's panic is codes.Internal for its caller.
type Channel struct {
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
	codec  encoding.CodecV2

	mu       sync.RWMutex
	services map[string]bool
	methods  map[string]*method // by full name
}

// method is what a full name stands for: one of unary and stream is set.
type method struct {
	full   string
	impl   any
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
}

// NewChannel returns a channel without services. The interceptors run on the server's side, around
// every handler; nil is none.
func NewChannel(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *Channel {
	return &Channel{
		unary: unary, stream: stream,
		codec:    encoding.GetCodecV2(proto.Name),
		services: make(map[string]bool), methods: make(map[string]*method),
	}
}

// RegisterService implements [grpc.ServiceRegistrar]. It panics when the service is registered
// already, as a mux does for a pattern: both are mistakes in the program, found at its start.
func (c *Channel) RegisterService(desc *grpc.ServiceDesc, impl any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.services[desc.ServiceName] {
		panic(fmt.Sprintf("inproc: gRPC service %s is registered twice", desc.ServiceName))
	}
	c.services[desc.ServiceName] = true
	for i := range desc.Methods {
		full := "/" + desc.ServiceName + "/" + desc.Methods[i].MethodName
		c.methods[full] = &method{full: full, impl: impl, unary: &desc.Methods[i]}
	}
	for i := range desc.Streams {
		full := "/" + desc.ServiceName + "/" + desc.Streams[i].StreamName
		c.methods[full] = &method{full: full, impl: impl, stream: &desc.Streams[i]}
	}
}

func (c *Channel) find(full string) (*method, error) {
	if !strings.HasPrefix(full, "/") {
		full = "/" + full
	}
	slash := strings.LastIndexByte(full, '/')
	service, name := strings.TrimPrefix(full[:slash], "/"), full[slash+1:]
	c.mu.RLock()
	defer c.mu.RUnlock()
	switch m := c.methods[full]; {
	case m != nil:
		return m, nil
	case slash == 0:
		return nil, status.Errorf(codes.Unimplemented, "inproc: method %q: expected /service/method", name)
	case !c.services[service]:
		return nil, status.Errorf(codes.Unimplemented, "unknown service %s", service)
	}
	return nil, status.Errorf(codes.Unimplemented, "unknown method %s for service %s", name, service)
}

// NewStream implements [grpc.ClientConnInterface].
func (c *Channel) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, full string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	o := new(callOptions)
	o.read(opts)
	return c.newStream(ctx, desc, full, o)
}

var errGoexit = errors.New("handler ended its goroutine")

// Invoke implements [grpc.ClientConnInterface]. It returns when the call is over or ctx ends,
// whichever is first; a handler that does not mind the end of its context goes on for itself.
func (c *Channel) Invoke(ctx context.Context, full string, args, reply any, opts ...grpc.CallOption) (err error) {
	call := &unaryCall{channel: c}
	o := &call.options
	o.read(opts)
	defer func() { o.finish(err) }()
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	m, err := c.find(full)
	if err != nil {
		return err
	}
	if m.unary == nil {
		return c.invokeStream(ctx, full, args, reply, o)
	}
	md, err := o.outgoing(ctx, m.full)
	if err != nil {
		return err
	}
	if call.request, err = c.marshal(args, o.maxSend); err != nil {
		return err
	}
	call.method, call.side.method, call.news = m, m.full, make(chan struct{}, 1)
	above := deadline.Follow(ctx, call)
	sctx := call.side.context(start(ctx, &call.limit), md)
	go func() {
		_ = grow(0)
		call.serve(sctx)
	}()
	<-call.news
	above.Stop()
	if !call.done.Load() {
		endLike(ctx, &call.limit)
		return status.FromContextError(ctx.Err()).Err()
	}
	defer call.reply.Free()
	o.deliver(&call.side)
	if call.err != nil {
		return call.err
	}
	return c.unmarshal(call.reply, reply, o.maxRecv)
}

// A unaryCall is a call. Its reply and err are the handler's goroutine's until done is set.
type unaryCall struct {
	channel *Channel
	method  *method
	options callOptions
	limit   deadline.Limit // of the handler's context
	request mem.BufferSlice
	side    serverSide
	done    atomic.Bool
	news    chan struct{} // has a token when the call is done, or the caller's context has ended
	reply   mem.BufferSlice
	err     error
}

// Ended is told that the caller's context has ended.
func (u *unaryCall) Ended() {
	select {
	case u.news <- struct{}{}:
	default:
	}
}

func (u *unaryCall) finish() {
	u.side.send(u.err == nil)
	u.done.Store(true)
	u.Ended()
}

func (u *unaryCall) serve(ctx context.Context) {
	defer u.limit.Cancel(nil)
	defer u.finish()
	defer contain(u.method.full, &u.err)()
	reply, err := u.method.unary.Handler(u.method.impl, ctx, func(v any) error {
		defer u.request.Free()
		return u.channel.unmarshal(u.request, v, defaultMaxReceive)
	}, u.channel.unary)
	if err == nil {
		u.reply, err = u.channel.marshal(reply, math.MaxInt)
	}
	u.err = statusError(err)
}

// contain returns a function to defer that makes an error of a panic.
func contain(method string, err *error) func() {
	*err = errGoexit // until the handler returns
	return func() {
		if p := recover(); p != nil || errors.Is(*err, errGoexit) {
			*err = status.Errorf(codes.Internal, "inproc: handler of %s panicked: %v", method, cmp.Or(p, any(errGoexit)))
		}
	}
}

// statusError makes of a handler's error what a client finds after the network. The copy shares no
// details with it.
func statusError(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	return status.FromProto(s.Proto()).Err()
}

// marshal returns the bytes of v, if they are at most limit.
func (c *Channel) marshal(v any, limit int) (mem.BufferSlice, error) {
	data, err := c.codec.Marshal(v)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "inproc: marshal %T: %v", v, err)
	}
	if n := data.Len(); n > limit {
		data.Free()
		return nil, status.Errorf(codes.ResourceExhausted, "inproc: message to send of %d bytes, at most %d allowed", n, limit)
	}
	return data, nil
}

func (c *Channel) unmarshal(data mem.BufferSlice, v any, limit int) error {
	if n := data.Len(); n > limit {
		return status.Errorf(codes.ResourceExhausted, "inproc: received message of %d bytes, at most %d allowed", n, limit)
	}
	if err := c.codec.Unmarshal(data, v); err != nil {
		return status.Errorf(codes.Internal, "inproc: unmarshal %T: %v", v, err)
	}
	return nil
}

// invokeStream makes a call of one request and one reply to a streaming method, which on the wire
// is the same thing.
func (c *Channel) invokeStream(ctx context.Context, full string, args, reply any, o *callOptions) error {
	quiet := *o
	quiet.onFinish = nil // Invoke tells them
	s, err := c.newStream(ctx, &grpc.StreamDesc{}, full, &quiet)
	if err != nil {
		return err
	}
	if err := s.SendMsg(args); err != nil {
		return fmt.Errorf("inproc: send to %s: %w", full, err)
	}
	_ = s.CloseSend() // it has no way to fail
	return s.RecvMsg(reply)
}
