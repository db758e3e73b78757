package telemetry_test

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
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
				ctx = extract(ctx, "00-0123456789abcdef0123456789abcdef-0123456789abcdef-"+parent, "")
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

// The share must be the same traces as in every other SDK.
func TestRatioAgreesWithTheSDK(t *testing.T) {
	t.Parallel()
	c := newCollector()
	tel := newTelemetry(t, telemetry.Options{
		Service: "s", Endpoint: c.serveGRPC(t), Sampler: "traceidratio", SamplerArg: 0.25, Log: telemetry.LogOptions{Output: io.Discard},
	})
	sdk := sdktrace.TraceIDRatioBased(0.25)
	sampled := 0
	for range 2000 {
		_, span := tel.Tracer().Start(t.Context(), "x")
		sc := span.SpanContext()
		want := sdk.ShouldSample(sdktrace.SamplingParameters{ParentContext: t.Context(), TraceID: sc.TraceID()}).Decision == sdktrace.RecordAndSample
		if sc.IsSampled() != want {
			t.Fatalf("trace %s: sampled %v, the SDK says %v", sc.TraceID(), sc.IsSampled(), want)
		}
		if want {
			sampled++
		}
	}
	if sampled < 400 || sampled > 600 {
		t.Errorf("%d of 2000 traces sampled, want about 500", sampled)
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
		`endpoint "localhost:4317" is not a URL such as http://`:     {Service: "s", Endpoint: "localhost:4317"},
		`unknown OTLP protocol "thrift"; known are grpc and`:         {Service: "s", Endpoint: "http://localhost:4317", Protocol: "thrift"},
		`unknown log format "xml"; known are console, text and json`: {Service: "s", Log: telemetry.LogOptions{Format: "xml"}},
	} {
		_, err := telemetry.New(t.Context(), opts)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v, want an error with %q", opts, err, want)
		}
	}
}

func extract(ctx context.Context, traceparent, tracestate string) context.Context {
	return telemetry.Extract(ctx, func(key string) string {
		return map[string]string{"traceparent": traceparent, "tracestate": tracestate}[key]
	})
}

const goodParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestExtract(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		valid bool
	}{
		{goodParent, true},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true},
		{"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true},
		{"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", true},
		{"", false},
		{"00", false},
		{"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01later", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false},
		{"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x", false},
		{"00-0af7651916cd43dd8448eb211c80319cxb7ad6b7169203331-01", false},
		{"00x0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331x01", false},
		{"0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
	} {
		sc := trace.SpanContextFromContext(extract(t.Context(), tt.in, ""))
		if sc.IsValid() != tt.valid {
			t.Errorf("traceparent %q: valid %v, want %v", tt.in, sc.IsValid(), tt.valid)
		}
		if tt.valid && (!sc.IsRemote() || sc.IsSampled() != strings.HasPrefix(tt.in[53:], "01")) {
			t.Errorf("traceparent %q: remote %v, sampled %v", tt.in, sc.IsRemote(), sc.IsSampled())
		}
	}
}

func TestTracestate(t *testing.T) {
	t.Parallel()
	ctx := extract(t.Context(), goodParent, "a=1,b=2")
	if got := injected(ctx).Get("tracestate"); got != "a=1,b=2" {
		t.Errorf("tracestate a=1,b=2 came out as %q", got)
	}
	for _, bad := range []string{"no pairs", "a=" + strings.Repeat("x", 2000)} {
		h := injected(extract(t.Context(), goodParent, bad))
		if h.Get("traceparent") != goodParent || h.Get("tracestate") != "" {
			t.Errorf("with tracestate %.20q: %v, want the traceparent alone", bad, h)
		}
	}
}

func injected(ctx context.Context) http.Header {
	h := http.Header{}
	telemetry.Inject(ctx, h.Set)
	return h
}

// Both directions against OpenTelemetry's own propagator.
func TestPropagationAgreesWithTheSDK(t *testing.T) {
	t.Parallel()
	if h := injected(t.Context()); len(h) != 0 {
		t.Errorf("Inject without a span wrote %v", h)
	}
	var other propagation.TraceContext
	for i := range uint64(64) {
		var cfg trace.SpanContextConfig
		binary.BigEndian.PutUint64(cfg.TraceID[8:], i*0x9e3779b97f4a7c15+1)
		binary.BigEndian.PutUint64(cfg.SpanID[:], i*0xbf58476d1ce4e5b9+1)
		cfg.TraceFlags = trace.TraceFlags(i % 2)
		want := trace.NewSpanContext(cfg)
		ctx := trace.ContextWithSpanContext(t.Context(), want)

		theirs := http.Header{}
		other.Inject(ctx, propagation.HeaderCarrier(theirs))
		if ours := injected(ctx).Get("traceparent"); ours != theirs.Get("traceparent") {
			t.Errorf("Inject wrote %q, the SDK %q", ours, theirs.Get("traceparent"))
		}
		got := trace.SpanContextFromContext(telemetry.Extract(t.Context(), theirs.Get))
		if !got.Equal(want.WithRemote(true)) {
			t.Errorf("Extract of %v = %v, want %v", theirs, got, want)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(goodParent, "a=1")
	f.Add("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", "")
	f.Fuzz(func(t *testing.T, parent, state string) {
		ctx := extract(t.Context(), parent, state)
		sc := trace.SpanContextFromContext(ctx)
		if !sc.IsValid() {
			return
		}
		if got := injected(ctx).Get("traceparent"); got[3:52] != parent[3:52] {
			t.Errorf("%q came out as %q", parent, got)
		}
	})
}
