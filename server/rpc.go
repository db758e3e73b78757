package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/telemetry"
)

// streamWorkers is how many goroutines are kept for RPCs, because their stacks have already grown
// to the size that an RPC needs. When all are busy an RPC gets a new goroutine.
const streamWorkers = 64

// newGRPC makes the gRPC server; the caller holds mu.
func (s *Server) newGRPC() {
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(4 << 20),
		grpc.MaxConcurrentStreams(100),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxHeaderListSize(64 << 10),
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: 30 * time.Minute,
			Time:             2 * time.Minute, // finds clients that have vanished
			Timeout:          20 * time.Second,
		}),
	}
	if s.opts.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(s.opts.TLS)))
	}
	s.grpc = grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	for _, r := range s.services {
		s.grpc.RegisterService(r.desc, r.impl)
	}
	if at, ok := s.grpcListener.Addr().(*net.TCPAddr); s.opts.Reflection || ok && at.IP.IsLoopback() {
		reflection.Register(s.grpc)
	}
}

// GRPC registers gRPC services, both for the network and for InProcess. The gRPC port is bound only
// if there is one. A service that is registered twice makes Listen fail. A service that is
// registered after Listen is ignored, with an error in the log.
func (s *Server) GRPC() grpc.ServiceRegistrar { return registrar{s} }

// InProcess returns a connection to the gRPC services without the network, through all
// interceptors.
func (s *Server) InProcess() grpc.ClientConnInterface { return s.channel }

// HasGRPC reports whether a gRPC service was registered.
func (s *Server) HasGRPC() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.services) > 0
}

type registrar struct{ s *Server }

// service is a registered gRPC service.
type service struct {
	desc *grpc.ServiceDesc
	impl any
}

func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error // for either of these grpc-go would end the process
	switch {
	case s.listening:
		err = fmt.Errorf("server: gRPC service %s registered after Listen", desc.ServiceName)
	case slices.ContainsFunc(s.services, func(o service) bool { return o.desc.ServiceName == desc.ServiceName }):
		err = fmt.Errorf("server: gRPC service %s registered twice", desc.ServiceName)
	default:
		s.services = append(s.services, service{desc, impl})
		s.channel.RegisterService(desc, impl)
		s.health.SetServingStatus(desc.ServiceName, healthpb.HealthCheckResponse_NOT_SERVING)
		return
	}
	s.mistakes = append(s.mistakes, err)
	s.log.Error(err.Error())
}

// call is one RPC in progress.
type call struct {
	server *Server
	ctx    context.Context
	limit  deadline.Limit
	span   telemetry.Span // of a quiet call the zero value
	flight flight
	slot   limit.Slot
	start  time.Time
	method string // without the leading slash
	quiet  bool   // health and reflection: neither measured nor logged
}

// open reports whether an RPC passes the user's interceptors and CheckPeer.
func (c *call) open() bool { return !strings.HasPrefix(c.method, "grpc.health.") }

// beginRPC is the first half of both interceptors. After an error the handler must not run.
func (s *Server) beginRPC(ctx context.Context, fullMethod string, unary bool) (*call, error) {
	c := &call{server: s, start: time.Now(), method: strings.TrimPrefix(fullMethod, "/")}
	c.quiet = strings.HasPrefix(c.method, "grpc.health.") || strings.HasPrefix(c.method, "grpc.reflection.")
	var parent trace.SpanContext
	if h := incoming(ctx, "traceparent"); h != "" {
		parent = telemetry.ParseTraceparent(h, incoming(ctx, "tracestate"))
	}
	var at time.Time
	if unary && s.opts.Timeout > 0 {
		own := c.start.Add(s.opts.Timeout)
		if theirs, ok := ctx.Deadline(); !ok || theirs.After(own) && !s.opts.DeadlineFrom.hasPeer(ctx) {
			at = own
		}
	}
	c.ctx = c.limit.Start(ctx, at)
	c.limit.Choose(!at.IsZero())
	c.limit.Own(c) // not for a request that this context is used for
	switch {
	case !c.quiet:
		s.begin(&c.span, c.method, parent, s.opts.TraceFrom.hasPeer(ctx))
		c.ctx = c.span.Context(c.ctx)
	case parent.IsValid():
		c.ctx = trace.ContextWithRemoteSpanContext(c.ctx, parent)
	}
	if h := metadata.ValueFromIncomingContext(ctx, wanted.Metadata); len(h) == 1 && s.opts.VersionFrom.hasPeer(ctx) {
		c.ctx = wanted.Parse(h[0]).Context(c.ctx)
	}
	c.flight = flight{limit: &c.limit, name: fullMethod}
	if !s.flights.add(&c.flight) {
		return c, status.Error(codes.Unavailable, "the server has shut down")
	}
	if err := c.ctx.Err(); err != nil {
		return c, status.FromContextError(err).Err()
	}
	if c.open() && !s.knowsPeer(c.ctx) {
		return c, status.Error(codes.Unauthenticated, noPeer)
	}
	if !c.quiet {
		return c, c.enter(fullMethod)
	}
	return c, nil
}

// incoming returns one value of the metadata, which metadata.FromIncomingContext would copy.
func incoming(ctx context.Context, key string) string {
	return first(metadata.ValueFromIncomingContext(ctx, key))
}

// end is the second half of both interceptors; p is what the handler panicked with, or nil.
func (c *call) end(p any, err *error) {
	defer c.limit.Cancel(nil)
	defer c.server.flights.remove(&c.flight) // last, or a shutdown would lose the records below
	if p != nil {
		c.server.log.LogAttrs(c.ctx, slog.LevelError, "panic in RPC", slog.String("method", c.method),
			slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.Internal, "the handler failed unexpectedly; trace_id "+telemetry.TraceID(c.ctx))
	}
	if away := dependency.Of(*err); away != "" {
		_ = grpc.SetTrailer(c.ctx, metadata.Pairs(dependency.Trailer, away)) // without it the failure is ours
	}
	st, ok := status.FromError(*err)
	if !ok {
		st = status.FromContextError(*err) // as grpc-go does for the wire
		*err = st.Err()
	}
	if st.Code() == codes.Canceled && errors.Is(context.Cause(c.ctx), ErrStopping) {
		st = status.New(codes.Unavailable, ErrStopping.Error()) // the client may go to another instance
		*err = st.Err()
	}
	if c.quiet {
		return
	}
	now := time.Now()
	took := now.Sub(c.start)
	rm := c.server.metrics.observeRPC(c.method, st.Code(), took.Seconds())
	switch st.Code() {
	case codes.OK, codes.DeadlineExceeded:
		c.slot.Release(now, &rm.latency, st.Code() == codes.OK)
	default:
		c.leave()
	}
	if c.span.IsRecording() {
		c.describeSpan(st)
	}
	c.span.End()
	h := c.server.log.Handler()
	if !h.Enabled(c.ctx, slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(now, slog.LevelInfo, "rpc", 0)
	r.AddAttrs(slog.String("method", c.method), slog.String("code", st.Code().String()),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	_ = h.Handle(c.ctx, r)
}

func (c *call) describeSpan(st *status.Status) {
	code := telemetry.RPCStatusName(st.Code())
	c.span.SetAttributes(telemetry.RPCSystem.String("grpc"), telemetry.RPCMethod.String(c.method), telemetry.RPCStatus.String(code))
	switch st.Code() {
	// The codes that OpenTelemetry counts as errors of a server.
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		c.span.SetAttributes(telemetry.ErrorType.String(code))
		c.span.SetStatus(otelcodes.Error, st.Message())
	}
}

// unary and stream run outside of the user's interceptors, so that these are measured too.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c, err := s.beginRPC(ctx, info.FullMethod, true)
	defer func() { c.end(recover(), &err) }()
	if err != nil {
		return nil, err
	}
	if c.open() {
		handler = s.intercepted(info, handler)
	}
	return handler(c.ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	c, err := s.beginRPC(ss.Context(), info.FullMethod, false)
	defer func() { c.end(recover(), &err) }()
	if err != nil {
		return err
	}
	c.leave()                // streams do not count against the limit
	if info.IsServerStream { // a stream of the client alone has an end, for which Shutdown waits
		s.flights.stream(&c.flight)
	}
	if c.open() {
		handler = s.interceptedStream(info, handler)
	}
	return handler(srv, &tracedStream{ss, c.ctx})
}

// tracedStream is a stream with the context of its call.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *tracedStream) Context() context.Context { return s.ctx }
