package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
)

// A collector is an OTLP receiver that remembers which services took part in
// which trace, with spans and with log records.
type collector struct {
	tracepb.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans map[string]map[string][]string // trace id → service → names of spans
	logs  map[string]map[string]bool     // trace id → services

	metrics map[string]bool // service → has sent http_requests_total
}

// logSide is the collector's service for logs; both have a method Export.
type logSide struct {
	logspb.UnimplementedLogsServiceServer
	*collector
}

// metricSide is the same for metrics.
type metricSide struct {
	metricspb.UnimplementedMetricsServiceServer
	*collector
}

func serviceOf(r *v1.Resource) string {
	for _, a := range r.GetAttributes() {
		if a.GetKey() == "service.name" {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

func (c *collector) Export(_ context.Context, in *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range in.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				if c.spans[id] == nil {
					c.spans[id] = make(map[string][]string)
				}
				service := serviceOf(r.GetResource())
				c.spans[id][service] = append(c.spans[id][service], span.GetName())
			}
		}
	}
	return new(tracepb.ExportTraceServiceResponse), nil
}

func (l logSide) Export(_ context.Context, in *logspb.ExportLogsServiceRequest) (*logspb.ExportLogsServiceResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range in.GetResourceLogs() {
		for _, scope := range r.GetScopeLogs() {
			for _, record := range scope.GetLogRecords() {
				id := hex.EncodeToString(record.GetTraceId())
				if l.logs[id] == nil {
					l.logs[id] = make(map[string]bool)
				}
				l.logs[id][serviceOf(r.GetResource())] = true
			}
		}
	}
	return new(logspb.ExportLogsServiceResponse), nil
}

func (m metricSide) Export(_ context.Context, in *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range in.GetResourceMetrics() {
		for _, scope := range r.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				if metric.GetName() == "http_requests_total" {
					m.metrics[serviceOf(r.GetResource())] = true
				}
			}
		}
	}
	return new(metricspb.ExportMetricsServiceResponse), nil
}

// startCollector serves one on loopback and returns its address.
func startCollector(t *testing.T, opts ...grpc.ServerOption) (*collector, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: make(map[string]map[string][]string), logs: make(map[string]map[string]bool), metrics: make(map[string]bool)}
	srv := grpc.NewServer(opts...)
	tracepb.RegisterTraceServiceServer(srv, c)
	logspb.RegisterLogsServiceServer(srv, logSide{collector: c})
	metricspb.RegisterMetricsServiceServer(srv, metricSide{collector: c})
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return c, l.Addr().String()
}

// missing says what is not there yet of the trace: one trace id in spans of gateway,
// order, inventory, payment, bank and, through the outbox, notification and
// analytics, and the same id in the log records of them.
func (c *collector) missing(traceID string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for service, span := range map[string]string{
		"gateway":              "POST /v1/orders",
		"order-service":        "checkout",
		"user-service":         "user.v1.UserService/GetUser",
		"inventory-service":    "inventory.v1.InventoryService/Reserve",
		"payment-service":      "payment.v1.PaymentService/Charge",
		"bank":                 "POST /charges",
		"notification-service": "process order.confirmed.v1",
		"analytics-service":    "process order.confirmed.v1",
	} {
		if !slices.ContainsFunc(c.spans[traceID][service], func(name string) bool { return strings.Contains(name, span) }) {
			return fmt.Sprintf("the trace has no span %q of %s; it has %v", span, service, c.spans[traceID][service])
		}
	}
	for _, service := range []string{"gateway", "order-service", "payment-service", "bank"} {
		if !c.logs[traceID][service] {
			return fmt.Sprintf("no log record of %s carries the trace id; those of %v do", service, c.logs[traceID])
		}
	}
	return ""
}

// unmeasured names the services that have sent no metrics.
func (c *collector) unmeasured() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, service := range []string{"gateway", "order-service", "bank"} {
		if !c.metrics[service] {
			names = append(names, service)
		}
	}
	return names
}
