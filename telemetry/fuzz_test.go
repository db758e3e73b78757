package telemetry_test

import (
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/telemetry"
)

// FuzzParseTraceparent compares with OpenTelemetry, whose tracestate has no bound.
func FuzzParseTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1,b@c=2")
	f.Add("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more", "")
	f.Add("ff-00000000000000000000000000000000-0000000000000000-00", "=")
	f.Add("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", ",,a=1,a=2")
	f.Add("\xff", "\x00")
	f.Fuzz(func(t *testing.T, parent, state string) {
		got := telemetry.ParseTraceparent(parent, state)
		if len(got.TraceState().String()) > 512 {
			t.Fatalf("tracestate of %d bytes, want at most 512", len(got.TraceState().String()))
		}
		headers := propagation.MapCarrier{"traceparent": parent, "tracestate": state}
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), headers))
		if len(state) > 512 {
			want = want.WithTraceState(trace.TraceState{})
		}
		if !got.Equal(want) {
			t.Fatalf("ParseTraceparent(%q, %q) = %+v, want %+v", parent, state, got, want)
		}
		if again := telemetry.ParseTraceparent(telemetry.FormatTraceparent(got), got.TraceState().String()); !again.Equal(got) {
			t.Fatalf("%q read again is %+v, want %+v", telemetry.FormatTraceparent(got), again, got)
		}
	})
}
