package telemetry_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	attr "go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/telemetry"
)

func TestExportAllSignals(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := newCollector()
			var endpoint string
			if protocol == "grpc" {
				endpoint = c.serveGRPC(t)
			} else {
				endpoint = c.serveHTTP(t)
			}
			tel := newTelemetry(t, telemetry.Options{
				Service: "order-service", Version: "v2", InstanceID: "i-7",
				Endpoint: endpoint, Protocol: protocol, Headers: map[string]string{"x-api-key": "k1"},
				Log: telemetry.LogOptions{Output: io.Discard},
			})
			orders := prometheus.NewCounter(prometheus.CounterOpts{Name: "orders_total", Help: "Orders."})
			tel.Registry().MustRegister(orders)
			orders.Add(3)
			ctx, span := tel.Tracer().Start(t.Context(), "place order")
			tel.Logger().InfoContext(ctx, "placed", "sku", "tea")
			tel.Logger().DebugContext(ctx, "below the level")
			span.End()
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatalf("Shutdown: %v", err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			checkReceived(t, c, telemetry.TraceID(ctx))
		})
	}
}

func checkReceived(t *testing.T, c *collector, traceID string) {
	t.Helper()
	if len(c.spans) != 1 || c.spans[0].Name != "place order" || hex.EncodeToString(c.spans[0].TraceId) != traceID {
		t.Errorf("spans = %v, want one named place order of trace %s", c.spans, traceID)
	}
	if len(c.logs) != 1 || c.logs[0].Body.GetStringValue() != "placed" || hex.EncodeToString(c.logs[0].TraceId) != traceID ||
		attribute(c.logs[0].Attributes, "sku") != "tea" {
		t.Errorf("logs = %v, want one record placed, sku=tea, of trace %s", c.logs, traceID)
	}
	if m := c.metrics["orders_total"]; m == nil || m.GetSum() == nil || m.GetSum().DataPoints[0].GetAsDouble() != 3 {
		t.Errorf("orders_total = %v, want a sum of 3", m)
	}
	if c.metrics["go_goroutines"] == nil {
		t.Error("metrics of the Go runtime are missing")
	}
	for _, signal := range []string{"traces", "logs", "metrics"} {
		if c.apiKeys[signal] != "k1" {
			t.Errorf("%s: header x-api-key = %q, want k1", signal, c.apiKeys[signal])
		}
		for key, want := range map[string]string{"service.name": "order-service", "service.version": "v2", "service.instance.id": "i-7"} {
			if got := attribute(c.resources[signal].GetAttributes(), key); got != want {
				t.Errorf("%s: resource %s = %q, want %q", signal, key, got, want)
			}
		}
	}
}

// One bad text, which anybody can send, must not cost the batch.
func TestBadTextIsReplaced(t *testing.T) {
	t.Parallel()
	c := newCollector()
	tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), Log: telemetry.LogOptions{Output: io.Discard}})
	_, good := tel.Tracer().Start(t.Context(), "good")
	good.End()
	_, bad := tel.Tracer().Start(t.Context(), "bad\xff")
	bad.SetAttributes(attr.String("url.path", "/hi/\xff"), attr.StringSlice("tags", []string{"ok", "\xfe"}), attr.Int("n", 1))
	bad.AddEvent("event\xff", trace.WithAttributes(attr.String("k", "\xff")))
	bad.SetStatus(otelcodes.Error, "\xff")
	bad.End()
	tel.Logger().Info("body\xff", "path", "/hi/\xff", slog.Group("g", "k", "\xff"), "list", []string{"\xff"})
	c.arrived(t, tel, 2, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans) != 2 || len(c.logs) != 1 {
		t.Fatalf("%d spans and %d records arrived, want 2 and 1", len(c.spans), len(c.logs))
	}
	if s := c.spans[1]; s.Name != "bad\ufffd" || attribute(s.Attributes, "url.path") != "/hi/\ufffd" || s.Status.Message != "\ufffd" {
		t.Errorf("span = %v, want U+FFFD for what is not UTF-8", s)
	}
	if r := c.logs[0]; r.Body.GetStringValue() != "body\ufffd" || attribute(r.Attributes, "path") != "/hi/\ufffd" {
		t.Errorf("record = %v, want U+FFFD for what is not UTF-8", r)
	}
}

// TestLoggedValues: records are converted later, and tell what was logged all the same.
func TestLoggedValues(t *testing.T) {
	t.Parallel()
	c := newCollector()
	tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), Log: telemetry.LogOptions{Output: io.Discard}})
	list := []string{"then"}
	ctx, span := tel.Tracer().Start(t.Context(), "x")
	tel.Logger().With("with", "w").WithGroup("g").InfoContext(ctx, "pointing", "list", list)
	list[0] = "later"
	tel.Logger().InfoContext(ctx, "plain", "n", 1)
	span.End()
	c.arrived(t, tel, 1, 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.logs) != 2 {
		t.Fatalf("%d records, want 2", len(c.logs))
	}
	for _, r := range c.logs {
		if hex.EncodeToString(r.SpanId) != span.SpanContext().SpanID().String() {
			t.Errorf("%v: want the span's id", r)
		}
	}
	if text := c.logs[0].String(); !strings.Contains(text, "then") || strings.Contains(text, "later") || attribute(c.logs[0].Attributes, "with") != "w" {
		t.Errorf("record = %v, want what the list held when it was logged", text)
	}
}

func TestSpanProcessorSeesSpans(t *testing.T) {
	t.Parallel()
	c := newCollector()
	for _, endpoint := range []string{"", c.serveGRPC(t)} {
		recorder := tracetest.NewSpanRecorder()
		tel := newTelemetry(t, telemetry.Options{
			Service: "s", Endpoint: endpoint, SpanProcessor: recorder, Log: telemetry.LogOptions{Output: io.Discard},
		})
		_, span := tel.Tracer().Start(t.Context(), "place order")
		span.End()
		ended := recorder.Ended()
		if len(ended) != 1 || ended[0].Name() != "place order" || ended[0].SpanContext().TraceID() != span.SpanContext().TraceID() {
			t.Errorf("endpoint %q: recorded %v, want the span", endpoint, ended)
		}
	}
}

// A collector that is away, or takes the connection and is silent, costs the stop 2 s, not 10.
func TestShutdownWithoutCollectorIsShort(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, endpoint := range map[string]string{"away": deadEndpoint(t), "silent": "http://" + silent.Addr().String()} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				tel := newTelemetry(t, telemetry.Options{
					Service: "s", Endpoint: endpoint, Protocol: protocol, Log: telemetry.LogOptions{Output: io.Discard},
				})
				_, span := tel.Tracer().Start(t.Context(), "x")
				span.End()
				tel.Logger().Info("x")
				start := time.Now()
				if err := tel.Shutdown(t.Context()); err == nil {
					t.Error("Shutdown = nil although nothing was sent")
				}
				if took := time.Since(start); took > 8*time.Second {
					t.Errorf("Shutdown took %v, want about 2 s and not the 10 of an export", took)
				}
			})
		}
	}
}

func TestMetricsGoOutPeriodically(t *testing.T) {
	t.Parallel()
	c := newCollector()
	newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), MetricInterval: 10 * time.Millisecond,
		Log: telemetry.LogOptions{Output: io.Discard}})
	eventually(t, "metrics to arrive without a shutdown", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.metrics["go_goroutines"] != nil
	})
}

// A port on which nobody listens.
func deadEndpoint(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("http://127.0.0.1:", servertest.Port(t))
}

func TestUnreachableCollector(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			var log buffer
			start := time.Now()
			tel := newTelemetry(t, telemetry.Options{
				Service: "s", Endpoint: deadEndpoint(t), Protocol: protocol,
				Timeout: 20 * time.Millisecond, MetricInterval: 20 * time.Millisecond,
				Log: telemetry.LogOptions{Output: &log, Format: "json"},
			})
			for range 600 { // more than one batch
				_, span := tel.Tracer().Start(t.Context(), "x")
				span.End()
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("New and 600 spans took %v with a dead collector", took)
			}
			dropped := func() float64 { return metricValue(t, tel, "telemetry_spans_dropped_total", "export_failed") }
			eventually(t, "the first batch to be counted as dropped", func() bool { return dropped() >= 512 })
			tel.Logger().Info("goes on")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := tel.Shutdown(ctx)
			if err == nil || !strings.Contains(err.Error(), "not sent") { // TestQueueFails counts
				t.Errorf("Shutdown = %v, want an error that says what was not sent", err)
			}
			if ctx.Err() != nil {
				t.Error("Shutdown took all of its 5 s")
			}
			if again := tel.Shutdown(ctx); again == nil || again.Error() != err.Error() {
				t.Errorf("second Shutdown = %v, want the same as the first: %v", again, err)
			}
			if got := dropped(); got != 600 {
				t.Errorf("dropped spans = %v, want all 600", got)
			}
			if n, _, _ := waittest.Outages(log.String(), "telemetry collector"); n != 1 {
				t.Errorf("%d outages were logged, want one:\n%s", n, log.String())
			}
		})
	}
}

func TestOutageEndsInTheLog(t *testing.T) {
	t.Parallel()
	endpoint := deadEndpoint(t)
	var log buffer
	newTelemetry(t, telemetry.Options{
		Service: "s", Endpoint: endpoint, Protocol: "http/protobuf",
		Timeout: time.Minute, MetricInterval: 20 * time.Millisecond, // a collector that is slow is none that is lost
		Log: telemetry.LogOptions{Output: &log, Format: "json"},
	})
	eventually(t, "the outage to be logged", func() bool { return strings.Contains(log.String(), "telemetry collector lost") })
	l, err := net.Listen("tcp", strings.TrimPrefix(endpoint, "http://"))
	if err != nil {
		t.Fatalf("the port that is this test's own: %v", err)
	}
	newCollector().serveHTTPOn(t, l)
	eventually(t, "the end of the outage to be logged", func() bool { return strings.Contains(log.String(), "telemetry collector is back") })
	if n, ended, _ := waittest.Outages(log.String(), "telemetry collector"); n != 1 || ended != 1 {
		t.Errorf("%d outages and %d ends were logged, want one:\n%s", n, ended, log.String())
	}
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	t.Parallel()
	c := newCollector()
	c.hold = make(chan struct{})
	tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), Timeout: time.Minute, Log: telemetry.LogOptions{Output: io.Discard}})
	const sent = 20_000 // more than a queue and a batch
	start := time.Now()
	for range sent {
		_, span := tel.Tracer().Start(t.Context(), "x")
		span.End()
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("%d spans took %v while the collector hung: the caller was blocked", sent, took)
	}
	dropped := metricValue(t, tel, "telemetry_spans_dropped_total", "queue_full")
	if dropped == 0 {
		t.Error("no span was counted as dropped")
	}
	close(c.hold)
	eventually(t, "all that was not dropped", func() bool { // which a stop gives two seconds
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.spans)+int(dropped) >= sent
	})
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans)+int(dropped) != sent {
		t.Errorf("%d spans arrived and %v were dropped, want %d together", len(c.spans), dropped, sent)
	}
}

func TestShutdownIsBoundedByItsContext(t *testing.T) {
	t.Parallel()
	c := newCollector()
	c.hold = make(chan struct{})
	defer close(c.hold)
	tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), Log: telemetry.LogOptions{Output: io.Discard}})
	_, span := tel.Tracer().Start(t.Context(), "x")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := tel.Shutdown(ctx); err == nil {
		t.Error("Shutdown = nil although the collector hung")
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("Shutdown with 50 ms took %v", took)
	}
}

func newTelemetry(t *testing.T, opts telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = tel.Shutdown(ctx) // a test that cares has looked at it
	})
	return tel
}

func metricValue(t *testing.T, tel *telemetry.Telemetry, name, reason string) float64 {
	t.Helper()
	families, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			if m.Label[0].GetValue() == reason {
				return m.Counter.GetValue()
			}
		}
	}
	t.Fatalf("metric %s{reason=%q} does not exist", name, reason)
	return 0
}

// eventually polls for what happens in other goroutines and over sockets,
// where a bubble of synctest does not reach.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	waittest.Until(tb, what, ok)
}

// buffer is a bytes.Buffer for concurrent use.
type buffer = waittest.Buffer
