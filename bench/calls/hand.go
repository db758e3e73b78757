package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/bench/internal/calls"
)

// requests are the usual two metrics of one side.
type requests struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newRequests(reg prometheus.Registerer, side string) requests {
	labels := []string{"method", "endpoint", "status"}
	m := requests{
		total:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: side + "_requests_total"}, labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: side + "_request_duration_seconds"}, labels[:2]),
	}
	reg.MustRegister(m.total, m.seconds)
	return m
}

func (m requests) note(method, endpoint string, status int, took time.Duration) {
	m.total.WithLabelValues(method, endpoint, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(method, endpoint).Observe(took.Seconds())
}

// statusWriter remembers the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// handChain is what a team writes around its handler: recovery, metrics and a line of access log.
func handChain(next http.Handler, m requests, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, out := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				log.ErrorContext(r.Context(), "panic", "value", p)
				http.Error(out, "internal error", http.StatusInternalServerError)
			}
			took := time.Since(begun)
			m.note(r.Method, r.Pattern, out.status, took)
			log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.String("route", r.Pattern), slog.Int("status", out.status), slog.Duration("duration", took), slog.String("remote", r.RemoteAddr))
		}()
		next.ServeHTTP(out, r)
	})
}

// handClient is the client's side of it: metrics and a breaker.
type handClient struct {
	next    http.RoundTripper
	breaker *gobreaker.CircuitBreaker[*http.Response]
	requests
}

var errServer = errors.New("the server failed")

func (c *handClient) RoundTrip(req *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := c.breaker.Execute(func() (*http.Response, error) {
		resp, err := c.next.RoundTrip(req)
		if err == nil && resp.StatusCode >= 500 {
			_ = resp.Body.Close()
			return nil, fmt.Errorf("%w: %s", errServer, resp.Status)
		}
		return resp, err
	})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	c.note(req.Method, req.URL.Host, status, time.Since(begun))
	return resp, err
}

func startHand(_ context.Context, env *calls.Env) (*calls.Running, error) {
	provider, flush := env.Provider()
	reg := prometheus.NewRegistry()
	tracing := []otelhttp.Option{otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(propagation.TraceContext{})}
	log := slog.New(slog.NewJSONHandler(env.Lines, nil))
	mux := http.NewServeMux()
	mux.Handle("GET /users/{id}", handChain(http.HandlerFunc(calls.GetUser), newRequests(reg, "http"), log))
	url, base, stop, err := calls.ServeHTTP(otelhttp.NewHandler(mux, "server", tracing...))
	if err != nil {
		return nil, err
	}
	rt := &handClient{
		next: base, requests: newRequests(reg, "client"),
		breaker: gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{Name: "users"}),
	}
	client := &http.Client{Transport: otelhttp.NewTransport(rt, tracing...), Timeout: 5 * time.Second}
	return &calls.Running{
		Call: func(ctx context.Context) error { return calls.Get(ctx, client, url) },
		Stop: stop, Flush: flush,
		Metrics: func() (float64, float64, error) {
			served, err := calls.Sum(reg, "http_requests_total")
			called, err2 := calls.Sum(reg, "client_requests_total")
			return served, called, errors.Join(err, err2)
		},
	}, nil
}

// The floors are bare stacks with what no chain can leave out: a deadline on both sides, and the
// header of a trace.

const floorTimeout = 5 * time.Second

// traceHeader is another one at each call.
func traceHeader() string {
	return fmt.Sprintf("00-%016x%016x-%016x-00", rand.Uint64(), rand.Uint64(), rand.Uint64())
}

func startFloorHTTP(context.Context, *calls.Env) (*calls.Running, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), floorTimeout)
		defer cancel()
		calls.GetUser(w, r.WithContext(ctx))
	})
	url, base, stop, err := calls.ServeHTTP(mux)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: base}
	return &calls.Running{Stop: stop, Call: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, floorTimeout)
		defer cancel()
		return calls.Get(ctx, client, url, "Traceparent", traceHeader())
	}}, nil
}

func startFloorGRPC(context.Context, *calls.Env) (*calls.Running, error) {
	users, stop, err := calls.ServeGRPC(nil, nil)
	if err != nil {
		return nil, err
	}
	return &calls.Running{Stop: stop, Call: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, floorTimeout) // grpc-go makes one on the server, too
		defer cancel()
		return calls.GetUserRPC(metadata.AppendToOutgoingContext(ctx, "traceparent", traceHeader()), users)
	}}, nil
}

func startOtelGRPC(_ context.Context, env *calls.Env) (*calls.Running, error) {
	provider, flush := env.Provider()
	tracing := []otelgrpc.Option{otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{})}
	users, stop, err := calls.ServeGRPC([]grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(tracing...))},
		[]grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(tracing...))})
	if err != nil {
		return nil, err
	}
	return &calls.Running{
		Call: func(ctx context.Context) error { return calls.GetUserRPC(ctx, users) }, Stop: stop, Flush: flush,
	}, nil
}
