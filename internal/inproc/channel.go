package inproc

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/status"
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
		return nil, status.Errorf(codes.Unimplemented, "inproc: method %q, want /service/method", name)
	case !c.services[service]:
		return nil, status.Errorf(codes.Unimplemented, "unknown service %s", service)
	}
	return nil, status.Errorf(codes.Unimplemented, "unknown method %s for service %s", name, service)
}

// NewStream implements [grpc.ClientConnInterface].
func (c *Channel) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, full string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.newStream(ctx, desc, full, readOptions(opts))
}
