package inproc

import (
	"context"
	"maps"
	"math"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/wanted"
)

const defaultMaxReceive = 4 << 20 // gRPC's own

// A Trace is a call option with the values of the metadata traceparent, tracestate,
// kaptar-principal and kaptar-version; "" is none. It saves a context and two copies of the
// metadata. Over the network it has no effect.
type Trace struct {
	grpc.EmptyCallOption
	Parent, State, Principal, Version string
}

// callOptions are the options of a call that mean something without a network.
type callOptions struct {
	headers, trailers []*metadata.MD
	onFinish          []func(error)
	trace             *Trace // nil: none
	creds             []credentials.PerRPCCredentials
	maxSend, maxRecv  int
}

func (o *callOptions) read(opts []grpc.CallOption) {
	o.maxSend, o.maxRecv = math.MaxInt, defaultMaxReceive
	for _, opt := range opts {
		switch opt := opt.(type) {
		case *Trace:
			o.trace = opt
		case grpc.HeaderCallOption:
			o.headers = append(o.headers, opt.HeaderAddr)
		case grpc.TrailerCallOption:
			o.trailers = append(o.trailers, opt.TrailerAddr)
		case grpc.PeerCallOption:
			*opt.PeerAddr = peer.Peer{Addr: address{}, LocalAddr: address{}}
		case grpc.OnFinishCallOption:
			o.onFinish = append(o.onFinish, opt.OnFinish)
		case grpc.PerRPCCredsCallOption:
			o.creds = append(o.creds, opt.Creds)
		case grpc.MaxSendMsgSizeCallOption:
			o.maxSend = opt.MaxSendMsgSize
		case grpc.MaxRecvMsgSizeCallOption:
			o.maxRecv = opt.MaxRecvMsgSize
		}
	}
}

// deliver gives the caller the metadata that came back.
func (o *callOptions) deliver(side *serverSide) {
	for _, h := range o.headers {
		*h = side.sentHeader()
	}
	for _, t := range o.trailers {
		*t = side.sentTrailer()
	}
}

func (o *callOptions) finish(err error) {
	for _, f := range o.onFinish {
		f(err)
	}
}

// outgoing returns a copy of the metadata of ctx with that of the credentials, for the server.
func (o *callOptions) outgoing(ctx context.Context, method string) (metadata.MD, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	if md == nil {
		md = metadata.MD{}
	}
	maps.DeleteFunc(md, reserved)
	for _, c := range o.creds {
		extra, err := c.GetRequestMetadata(ctx, "https://in-process"+path.Dir(method))
		if err != nil {
			if _, ok := status.FromError(err); ok {
				return nil, err
			}
			return nil, status.Errorf(codes.Internal, "inproc: per-call credentials: %v", err)
		}
		for k, v := range extra {
			md.Append(k, v)
		}
	}
	if o.trace != nil {
		appendTo(md, "traceparent", o.trace.Parent)
		appendTo(md, "tracestate", o.trace.State)
		appendTo(md, "kaptar-principal", o.trace.Principal)
		appendTo(md, wanted.Metadata, o.trace.Version)
	}
	if err := validate(md); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	md.Set("content-type", contentType)
	return md, nil
}

func appendTo(md metadata.MD, key, value string) {
	if value != "" {
		md[key] = append(md[key], value)
	}
}
