package telemetry_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/telemetry"
)

const goodParent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"

// TestTraceparentAsOpenTelemetry tries good headers, and many with one or two bytes changed, on ours
// and on OpenTelemetry's own reader.
func TestTraceparentAsOpenTelemetry(t *testing.T) {
	t.Parallel()
	headers := []string{
		"", "00", goodParent, goodParent + "-", goodParent + "-x", "cc" + goodParent[2:], "cc" + goodParent[2:] + "-x", "cc" + goodParent[2:] + "x",
		"ff" + goodParent[2:], "00-" + strings.Repeat("0", 32) + "-0123456789abcdef-01", goodParent[:36] + strings.Repeat("0", 16) + "-01",
		goodParent[:53] + "02", goodParent[:53] + "03", goodParent[:53] + "04", strings.ToUpper(goodParent), " " + goodParent,
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		h := []byte(headers[random.IntN(8)])
		for range 1 + random.IntN(2) {
			if len(h) > 0 {
				h[random.IntN(len(h))] = "-0fg\xff A"[random.IntN(7)]
			}
		}
		headers = append(headers, string(h))
	}
	for _, h := range headers {
		for _, state := range []string{"", "a=1,b=2", "bad state=", "a=1,a=2"} {
			ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": h, "tracestate": state})
			want, got := trace.SpanContextFromContext(ctx), telemetry.ParseTraceparent(h, state)
			if strings.HasPrefix(h, "00") && strings.HasSuffix(h, "-") { // which it takes, against W3C
				ctx, want = t.Context(), trace.SpanContext{}
			}
			if !got.Equal(want) {
				t.Fatalf("ParseTraceparent(%q, %q) = %v, OpenTelemetry has %v", h, state, got, want)
			}
			carrier := propagation.MapCarrier{}
			propagation.TraceContext{}.Inject(ctx, carrier)
			if out := telemetry.FormatTraceparent(got); out != carrier["traceparent"] {
				t.Fatalf("FormatTraceparent(%v) = %q, OpenTelemetry has %q", got, out, carrier["traceparent"])
			}
		}
	}
	if got := telemetry.ParseTraceparent(goodParent, "a="+strings.Repeat("x", 600)); got.TraceState().Len() != 0 || !got.IsValid() {
		t.Errorf("a tracestate of 602 bytes: got %v, want none", got.TraceState())
	}
}

// TestRatioAsOpenTelemetry: services of one trace decide alike, whoever made them.
func TestRatioAsOpenTelemetry(t *testing.T) {
	t.Parallel()
	c := newCollector()
	endpoint := c.serveGRPC(t)
	for _, share := range []float64{0, 0.01, 0.3, 0.999, 1} {
		tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: endpoint, Sampler: "traceidratio", SamplerArg: share})
		theirs := sdktrace.TraceIDRatioBased(share)
		for range 2000 {
			_, span := tel.Tracer().Start(t.Context(), "x")
			id := span.SpanContext().TraceID()
			want := theirs.ShouldSample(sdktrace.SamplingParameters{TraceID: id}).Decision == sdktrace.RecordAndSample
			if got := span.SpanContext().IsSampled(); got != want {
				t.Fatalf("share %v: trace %v sampled %v, OpenTelemetry says %v", share, id, got, want)
			}
		}
	}
}
