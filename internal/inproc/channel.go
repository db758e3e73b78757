package inproc

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	services map[string]*service
}

type service struct {
	impl     any
	methods  map[string]*grpc.MethodDesc
	streams  map[string]*grpc.StreamDesc
	metadata any
}

var (
	_ grpc.ServiceRegistrar    = (*Channel)(nil)
	_ grpc.ClientConnInterface = (*Channel)(nil)
)

// NewChannel returns a channel without services. The interceptors run on the server's side, around
// every handler; nil is none.
func NewChannel(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *Channel {
	return &Channel{
		unary: unary, stream: stream,
		codec:    encoding.GetCodecV2(proto.Name),
		services: make(map[string]*service),
	}
}

// RegisterService implements [grpc.ServiceRegistrar]. It panics when the service is registered
// already, as a mux does for a pattern: both are mistakes in the program, found at its start.
func (c *Channel) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s := &service{
		impl:     impl,
		methods:  make(map[string]*grpc.MethodDesc, len(desc.Methods)),
		streams:  make(map[string]*grpc.StreamDesc, len(desc.Streams)),
		metadata: desc.Metadata,
	}
	for i := range desc.Methods {
		s.methods[desc.Methods[i].MethodName] = &desc.Methods[i]
	}
	for i := range desc.Streams {
		s.streams[desc.Streams[i].StreamName] = &desc.Streams[i]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.services[desc.ServiceName]; ok {
		panic(fmt.Sprintf("inproc: gRPC service %s is registered twice", desc.ServiceName))
	}
	c.services[desc.ServiceName] = s
}

// GetServiceInfo returns the registered services, as [grpc.Server] does; the reflection service
// asks for it.
func (c *Channel) GetServiceInfo() map[string]grpc.ServiceInfo {
	c.mu.RLock()
	defer c.mu.RUnlock()
	infos := make(map[string]grpc.ServiceInfo, len(c.services))
	for name, s := range c.services {
		info := grpc.ServiceInfo{Metadata: s.metadata}
		for _, m := range slices.Sorted(maps.Keys(s.methods)) {
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: m})
		}
		for _, m := range slices.Sorted(maps.Keys(s.streams)) {
			d := s.streams[m]
			info.Methods = append(info.Methods, grpc.MethodInfo{
				Name: m, IsClientStream: d.ClientStreams, IsServerStream: d.ServerStreams,
			})
		}
		infos[name] = info
	}
	return infos
}

// method is what a full name stands for: one of unary and stream is set.
type method struct {
	full   string
	impl   any
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
}

func (c *Channel) find(full string) (method, error) {
	name := strings.TrimPrefix(full, "/")
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return method{}, status.Errorf(codes.Unimplemented, "inproc: method %q, want /service/method", full)
	}
	c.mu.RLock()
	s := c.services[name[:slash]]
	c.mu.RUnlock()
	if s == nil {
		return method{}, status.Errorf(codes.Unimplemented, "unknown service %s", name[:slash])
	}
	m := method{full: "/" + name, impl: s.impl, unary: s.methods[name[slash+1:]], stream: s.streams[name[slash+1:]]}
	if m.unary == nil && m.stream == nil {
		return method{}, status.Errorf(codes.Unimplemented, "unknown method %s for service %s", name[slash+1:], name[:slash])
	}
	return m, nil
}

// Invoke implements [grpc.ClientConnInterface]. It returns when the call is over or ctx ends,
// whichever is first; a handler that does not mind the end of its context goes on for itself.
func (c *Channel) Invoke(ctx context.Context, full string, args, reply any, opts ...grpc.CallOption) error {
	o := readOptions(opts)
	err := c.invoke(ctx, full, args, reply, o)
	o.finish(err)
	return err
}

// NewStream implements [grpc.ClientConnInterface].
func (c *Channel) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, full string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := c.newStream(ctx, desc, full, readOptions(opts))
	if err != nil {
		return nil, err
	}
	return s, nil
}
