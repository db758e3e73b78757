package server

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/internal/label"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/telemetry"
)

// unmatched is the endpoint label of requests that match no route.
const unmatched = "unmatched"

// metrics are the metrics of one server. The children of a route and code are looked up once, so
// that later requests do not hash labels.
type metrics struct {
	service     string
	requests    *prometheus.CounterVec
	requestTime *prometheus.HistogramVec
	streams     *prometheus.CounterVec
	rpcs        *prometheus.CounterVec
	rpcTime     *prometheus.HistogramVec
	refused     *prometheus.CounterVec
	routes      cache[routeKey, *routeMetrics]
	rpcMethods  cache[string, *rpcMetrics]
}

type routeKey struct{ method, pattern string }

// routeMetrics are those of one method and route.
type routeMetrics struct {
	method   string // as a label
	endpoint string
	span     string // name of the span
	seconds  prometheus.Observer
	codes    telemetry.Counters // by status-100
	latency  limit.Latency
}

// rpcMetrics are those of one RPC method.
type rpcMetrics struct {
	seconds prometheus.Observer
	codes   telemetry.Counters
	latency limit.Latency
}

func newMetrics(reg prometheus.Registerer, service string) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: telemetry.Buckets(), NativeHistogramBucketFactor: telemetry.NativeFactor,
		}, labels))
	}
	return &metrics{
		service: service,
		requests: counter("http_requests_total", "HTTP requests answered, by route and status.",
			"service", "method", "endpoint", "status"),
		requestTime: histogram("http_request_duration_seconds", "Time to answer an HTTP request; of a stream, to its first part.",
			"service", "method", "endpoint"),
		streams: counter("http_streams_total", "Answers that were streams, by how they ended.",
			"service", "method", "endpoint", "end"),
		rpcs:    counter("rpc_requests_total", "RPCs answered, by method and gRPC code.", "service", "method", "code"),
		rpcTime: histogram("rpc_request_duration_seconds", "Time to answer an RPC; of a stream, its life.", "service", "method"),
		refused: counter("server_rejected_total", "Calls that were not worked on because there was no room, by reason.", "service", "reason"),
	}
}

// registerGauges adds what is read only when /metrics is.
func (s *Server) registerGauges() {
	gauge := func(name, help string, value func() float64) {
		telemetry.Register(s.tel.Registry(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"service": s.tel.Service()},
		}, value))
	}
	gauge("server_calls_in_flight", "HTTP requests and RPCs being answered, those within the process included.", s.flights.count)
	gauge("server_limit", "How many calls may be worked on at a time, as found from their latency.",
		func() float64 { s.prepare(); return s.limiter.Limit() })
	gauge("server_queue_length", "Calls that wait for their turn.", func() float64 { s.prepare(); return s.limiter.Waiting() })
}

// scrapeLog logs what fails in /metrics. A client that does not read all of it is not an error.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	if text := strings.TrimSpace(fmt.Sprintln(v...)); strings.HasPrefix(text, "error gathering") { // not of writing
		l.log.Error(text)
	}
}

func (m *metrics) route(method, pattern string) *routeMetrics {
	return m.routes.get(routeKey{method, pattern}, func() *routeMetrics {
		endpoint := pattern
		if _, path, ok := strings.Cut(pattern, " "); ok {
			endpoint = strings.TrimLeft(path, " \t")
		}
		span := method + " " + endpoint
		if endpoint == "" {
			endpoint, span = unmatched, method // clients must not be able to make up names
		}
		return &routeMetrics{
			method: method, endpoint: endpoint, span: span,
			seconds: m.requestTime.WithLabelValues(m.service, method, endpoint), codes: make(telemetry.Counters, 500),
		}
	})
}

func (m *metrics) observe(rm *routeMetrics, status int, seconds float64) {
	rm.seconds.Observe(seconds)
	rm.codes.Add(status-100, func() prometheus.Counter {
		return m.requests.WithLabelValues(m.service, rm.method, rm.endpoint, label.Status(status))
	})
}

func (m *metrics) observeRPC(method string, code codes.Code, seconds float64) *rpcMetrics {
	code = label.Code(code)
	rm := m.rpcMethods.get(method, func() *rpcMetrics {
		return &rpcMetrics{
			seconds: m.rpcTime.WithLabelValues(m.service, method), codes: make(telemetry.Counters, codes.Unauthenticated+1),
		}
	})
	rm.seconds.Observe(seconds)
	rm.codes.Add(int(code), func() prometheus.Counter {
		return m.rpcs.WithLabelValues(m.service, method, code.String())
	})
	return rm
}

// knownMethod maps all unknown methods to one, so that clients cannot make up time series.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace, "QUERY":
		return method
	}
	return "OTHER"
}

// cache is a map for few keys that stay: read without a lock, and copied when it grows.
type cache[K comparable, V any] struct {
	m  atomic.Pointer[map[K]V]
	mu sync.Mutex
}

func (c *cache[K, V]) get(key K, build func() V) V {
	if m := c.m.Load(); m != nil {
		if v, ok := (*m)[key]; ok {
			return v
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[K]V{}
	if m := c.m.Load(); m != nil {
		if v, ok := (*m)[key]; ok {
			return v
		}
		next = maps.Clone(*m)
	}
	v := build()
	next[key] = v
	c.m.Store(&next)
	return v
}
