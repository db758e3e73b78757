package telemetry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/kaptar/kaptar/telemetry"
)

// collector is an OTLP receiver over gRPC and HTTP that keeps what it gets.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	mu        sync.Mutex
	spans     []*tracepb.Span
	logs      []*logspb.LogRecord
	metrics   map[string]*metricspb.Metric
	resources map[string]*resourcepb.Resource // by signal
	apiKeys   map[string]string               // by signal
	hold      chan struct{}                   // when not nil, trace exports wait for it
}

func newCollector() *collector {
	return &collector{
		metrics: map[string]*metricspb.Metric{}, resources: map[string]*resourcepb.Resource{}, apiKeys: map[string]string{},
	}
}

// serveGRPC returns the URL of the collector.
func (c *collector) serveGRPC(t testing.TB, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	coltrace.RegisterTraceServiceServer(s, c)
	collogs.RegisterLogsServiceServer(s, logsReceiver{c: c})
	colmetrics.RegisterMetricsServiceServer(s, metricsReceiver{c: c})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return "http://" + l.Addr().String()
}

func (c *collector) serveHTTP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.serveHTTPOn(t, l)
	return "http://" + l.Addr().String()
}

func (c *collector) serveHTTPOn(t *testing.T, l net.Listener) {
	mux := http.NewServeMux()
	receive(mux, "/v1/traces", func() *coltrace.ExportTraceServiceRequest { return &coltrace.ExportTraceServiceRequest{} }, c.takeSpans)
	receive(mux, "/v1/logs", func() *collogs.ExportLogsServiceRequest { return &collogs.ExportLogsServiceRequest{} }, c.takeLogs)
	receive(mux, "/v1/metrics", func() *colmetrics.ExportMetricsServiceRequest { return &colmetrics.ExportMetricsServiceRequest{} }, c.takeMetrics)
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

func receive[M proto.Message](mux *http.ServeMux, path string, empty func() M, take func(key string, m M)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		m := empty()
		if err == nil {
			err = proto.Unmarshal(data, m)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		take(r.Header.Get("X-Api-Key"), m)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})
}

func apiKey(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, "x-api-key"); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (c *collector) Export(ctx context.Context, r *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	if c.hold != nil {
		select {
		case <-c.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c.takeSpans(apiKey(ctx), r)
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *collector) takeSpans(key string, r *coltrace.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apiKeys["traces"] = key
	for _, rs := range r.ResourceSpans {
		c.resources["traces"] = rs.Resource
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
}

type logsReceiver struct {
	collogs.UnimplementedLogsServiceServer
	c *collector
}

func (l logsReceiver) Export(ctx context.Context, r *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	l.c.takeLogs(apiKey(ctx), r)
	return &collogs.ExportLogsServiceResponse{}, nil
}

func (c *collector) takeLogs(key string, r *collogs.ExportLogsServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apiKeys["logs"] = key
	for _, rl := range r.ResourceLogs {
		c.resources["logs"] = rl.Resource
		for _, sl := range rl.ScopeLogs {
			c.logs = append(c.logs, sl.LogRecords...)
		}
	}
}

type metricsReceiver struct {
	colmetrics.UnimplementedMetricsServiceServer
	c *collector
}

func (m metricsReceiver) Export(ctx context.Context, r *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	m.c.takeMetrics(apiKey(ctx), r)
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

func (c *collector) takeMetrics(key string, r *colmetrics.ExportMetricsServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apiKeys["metrics"] = key
	for _, rm := range r.ResourceMetrics {
		c.resources["metrics"] = rm.Resource
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				c.metrics[metric.Name] = metric
			}
		}
	}
}

// arrived waits until so many spans and records are there, and stops tel: the stop alone would give
// them two seconds.
func (c *collector) arrived(t *testing.T, tel *telemetry.Telemetry, spans, logs int) {
	t.Helper()
	eventually(t, "all spans and records", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.spans) >= spans && len(c.logs) >= logs
	})
	_ = tel.Shutdown(t.Context()) // sends what is too much
}

func attribute(attrs []*commonpb.KeyValue, key string) string {
	for _, a := range attrs {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
