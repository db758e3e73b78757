package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/middleware/circuitbreaker"
	"github.com/go-kratos/kratos/v2/middleware/logging"
	"github.com/go-kratos/kratos/v2/middleware/metrics"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/kaptar/kaptar/bench/internal/calls"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// kratosParts are Kratos's own middlewares, in the order of its examples.
type kratosParts struct {
	listener       net.Listener
	flush          func(context.Context, int64) error
	reader         *sdkmetric.ManualReader
	server, client []middleware.Middleware
}

func newKratos(env *calls.Env) (*kratosParts, error) {
	log.SetLogger(log.NewStdLogger(io.Discard)) // of what is no call
	provider, flush := env.Provider()
	p := &kratosParts{flush: flush, reader: sdkmetric.NewManualReader()}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader)).Meter("kratos")
	served, err := newInstruments(meter, metrics.DefaultServerRequestsCounterName, metrics.DefaultServerSecondsHistogramName)
	called, err2 := newInstruments(meter, metrics.DefaultClientRequestsCounterName, metrics.DefaultClientSecondsHistogramName)
	listener, err3 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	p.listener = listener
	logger := log.NewStdLogger(env.Lines)
	spans := []tracing.Option{tracing.WithTracerProvider(provider), tracing.WithPropagator(propagation.TraceContext{})}
	p.server = []middleware.Middleware{recovery.Recovery(), tracing.Server(spans...), metrics.Server(served...), logging.Server(logger)}
	p.client = []middleware.Middleware{
		recovery.Recovery(), tracing.Client(spans...), metrics.Client(called...), logging.Client(logger), circuitbreaker.Client(),
	}
	return p, nil
}

func newInstruments(meter metric.Meter, counter, histogram string) ([]metrics.Option, error) {
	requests, err := metrics.DefaultRequestsCounter(meter, counter)
	seconds, err2 := metrics.DefaultSecondsHistogram(meter, histogram)
	return []metrics.Option{metrics.WithRequests(requests), metrics.WithSeconds(seconds)}, errors.Join(err, err2)
}

// metrics returns how many calls the counters of both sides have seen.
func (p *kratosParts) metrics() (server, client float64, err error) {
	var all metricdata.ResourceMetrics
	if err := p.reader.Collect(context.Background(), &all); err != nil {
		return 0, 0, err
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, point := range sum.DataPoints {
				switch m.Name {
				case metrics.DefaultServerRequestsCounterName:
					server += float64(point.Value)
				case metrics.DefaultClientRequestsCounterName:
					client += float64(point.Value)
				}
			}
		}
	}
	return server, client, nil
}

func startKratosHTTP(ctx context.Context, env *calls.Env) (*calls.Running, error) {
	p, err := newKratos(env)
	if err != nil {
		return nil, err
	}
	srv := khttp.NewServer(khttp.Listener(p.listener), khttp.Middleware(p.server...))
	srv.Route("/").GET("/users/{id}", func(c khttp.Context) error { // as its generator writes handlers
		var in userv1.GetUserRequest
		if err := c.BindVars(&in); err != nil {
			return err
		}
		khttp.SetOperation(c, userv1.UserService_GetUser_FullMethodName)
		out, err := c.Middleware(func(_ context.Context, in any) (any, error) {
			u := calls.FindUser(in.(*userv1.GetUserRequest).GetId())
			return &u, nil
		})(c, &in)
		if err != nil {
			return err
		}
		return c.Result(http.StatusOK, out)
	})
	go func() { _ = srv.Start(ctx) }() // ends with Stop
	base := calls.Client()
	client, err := khttp.NewClient(ctx, khttp.WithEndpoint("discovery:///users"), khttp.WithTransport(base), khttp.WithBlock(),
		khttp.WithDiscovery(oneInstance("http://"+p.listener.Addr().String()+"?isSecure=false")), khttp.WithMiddleware(p.client...))
	if err != nil {
		return nil, err
	}
	operation := []khttp.CallOption{khttp.Operation(userv1.UserService_GetUser_FullMethodName), khttp.PathTemplate("/users/{id}")}
	return &calls.Running{
		Call: func(ctx context.Context) error {
			var u calls.User
			if err := client.Invoke(ctx, http.MethodGet, calls.Path, nil, &u, operation...); err != nil {
				return err
			}
			return calls.Check(u)
		},
		Stop: func() error {
			base.CloseIdleConnections()
			return errors.Join(client.Close(), srv.Stop(context.WithoutCancel(ctx)))
		},
		Flush: p.flush, Metrics: p.metrics,
	}, nil
}

func startKratosGRPC(ctx context.Context, env *calls.Env) (*calls.Running, error) {
	p, err := newKratos(env)
	if err != nil {
		return nil, err
	}
	srv := kgrpc.NewServer(kgrpc.Listener(p.listener), kgrpc.Middleware(p.server...))
	userv1.RegisterUserServiceServer(srv, calls.Users{})
	go func() { _ = srv.Start(ctx) }() // ends with Stop
	conn, err := kgrpc.DialInsecure(ctx, kgrpc.WithEndpoint("discovery:///users"), kgrpc.WithPrintDiscoveryDebugLog(false),
		kgrpc.WithDiscovery(oneInstance("grpc://"+p.listener.Addr().String()+"?isSecure=false")), kgrpc.WithMiddleware(p.client...))
	if err != nil {
		return nil, err
	}
	users := userv1.NewUserServiceClient(conn)
	return &calls.Running{
		Call:  func(ctx context.Context) error { return calls.GetUserRPC(ctx, users) },
		Stop:  func() error { return errors.Join(conn.Close(), srv.Stop(context.WithoutCancel(ctx))) },
		Flush: p.flush, Metrics: p.metrics,
	}, nil
}

// oneInstance is a registry of Kratos with one instance at this endpoint.
type oneInstance string

func (o oneInstance) GetService(context.Context, string) ([]*registry.ServiceInstance, error) {
	return []*registry.ServiceInstance{{ID: "a", Name: "users", Endpoints: []string{string(o)}}}, nil
}

func (o oneInstance) Watch(context.Context, string) (registry.Watcher, error) {
	w := make(oneWatcher, 1)
	w <- o
	return w, nil
}

// oneWatcher tells of the instance, and then of no change.
type oneWatcher chan oneInstance

func (w oneWatcher) Next() ([]*registry.ServiceInstance, error) {
	o, ok := <-w
	if !ok {
		return nil, context.Canceled
	}
	return o.GetService(context.Background(), "")
}

func (w oneWatcher) Stop() error {
	close(w)
	return nil
}
