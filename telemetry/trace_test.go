package telemetry_test

import (
	"context"
	"io"
	"math"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/telemetry"
)

func TestIdsWithoutEndpoint(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, telemetry.Options{Service: "s", Log: telemetry.LogOptions{Output: io.Discard}})
	ctx, parent := tel.Tracer().Start(t.Context(), "parent")
	childCtx, child := tel.Tracer().Start(ctx, "child")
	p, c := parent.SpanContext(), child.SpanContext()
	if !p.IsValid() || !c.IsValid() || p.TraceID() != c.TraceID() || p.SpanID() == c.SpanID() {
		t.Errorf("parent %v, child %v: want one trace and two spans", p, c)
	}
	if parent.IsRecording() {
		t.Error("a span that goes nowhere is recorded")
	}
	if !c.IsSampled() {
		t.Error("the decision to sample is not kept for the next service")
	}
	if got := telemetry.TraceID(childCtx); got != p.TraceID().String() {
		t.Errorf("TraceID = %q, want %q", got, p.TraceID())
	}
	if got := telemetry.TraceID(t.Context()); got != "" {
		t.Errorf("TraceID without a span = %q, want none", got)
	}
	_, root := tel.Tracer().Start(ctx, "root", trace.WithNewRoot())
	if root.SpanContext().TraceID() == p.TraceID() {
		t.Error("WithNewRoot stays in the trace of its parent")
	}
	if _, s := child.TracerProvider().Tracer("lib").Start(ctx, "x"); s.SpanContext().TraceID() != p.TraceID() {
		t.Error("the tracer provider of a span starts other traces")
	}
}

func TestSamplers(t *testing.T) {
	t.Parallel()
	c := newCollector()
	endpoint := c.serveGRPC(t)
	for _, tt := range []struct {
		name                             string
		arg                              float64
		root, underSampled, underDropped bool
	}{
		{"", 0, true, true, false},
		{"always_on", 0, true, true, true},
		{"always_off", 0, false, false, false},
		{"traceidratio", 1, true, true, true},
		{"traceidratio", 0, false, false, false},
		{"parentbased_always_on", 0, true, true, false},
		{"parentbased_always_off", 0, false, true, false},
		{"parentbased_traceidratio", 0, false, true, false},
		{"parentbased_traceidratio", 1, true, true, false},
	} {
		tel := newTelemetry(t, telemetry.Options{
			Service: "s", Endpoint: endpoint, Sampler: tt.name, SamplerArg: tt.arg, Log: telemetry.LogOptions{Output: io.Discard},
		})
		for parent, want := range map[string]bool{
			"":   tt.root,
			"01": tt.underSampled,
			"00": tt.underDropped,
		} {
			ctx := t.Context()
			if parent != "" {
				ctx = extract(ctx, "00-0123456789abcdef0123456789abcdef-0123456789abcdef-"+parent)
			}
			_, span := tel.Tracer().Start(ctx, "x")
			sc := span.SpanContext()
			if sc.IsSampled() != want || span.IsRecording() != want {
				t.Errorf("%s(%v) under parent %q: sampled %v, recording %v, want %v",
					tt.name, tt.arg, parent, sc.IsSampled(), span.IsRecording(), want)
			}
			if parent != "" && sc.TraceID().String() != "0123456789abcdef0123456789abcdef" {
				t.Errorf("%s under parent %q: trace %s, want that of the parent", tt.name, parent, sc.TraceID())
			}
			if !sc.IsValid() || sc.SpanID().String() == "0123456789abcdef" {
				t.Errorf("%s under parent %q: span %s, want one of its own", tt.name, parent, sc.SpanID())
			}
		}
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for want, opts := range map[string]telemetry.Options{
		"telemetry: no service name": {},
		`telemetry: unknown sampler "jaeger"; known are always_on, always_off, traceidratio, parentbased_always_on`: {Service: "s", Sampler: "jaeger"},
		`unknown sampler "parentbased_"`:                             {Service: "s", Sampler: "parentbased_"},
		"share 1.5 is not between 0 and 1":                           {Service: "s", Sampler: "traceidratio", SamplerArg: 1.5},
		"share -0.1 is not between 0 and 1":                          {Service: "s", Sampler: "parentbased_traceidratio", SamplerArg: -0.1},
		"share NaN is not between 0 and 1":                           {Service: "s", Sampler: "traceidratio", SamplerArg: math.NaN()},
		`endpoint "localhost:4317": expected a URL such as http://`:  {Service: "s", Endpoint: "localhost:4317"},
		`unknown OTLP protocol "thrift"; known are grpc and`:         {Service: "s", Endpoint: "http://localhost:4317", Protocol: "thrift"},
		`unknown log format "xml"; known are console, text and json`: {Service: "s", Log: telemetry.LogOptions{Format: "xml"}},
	} {
		_, err := telemetry.New(t.Context(), opts)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v, want an error with %q", opts, err, want)
		}
	}
}

func extract(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
