package telemetry

import (
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// maxTracestate is the length of a tracestate that W3C Trace Context requires everybody to pass on.
const maxTracestate = 512

// ParseTraceparent reads the headers traceparent and tracestate of W3C Trace Context, as
// OpenTelemetry's propagation.TraceContext does, without a carrier. It returns the context of a
// remote span, or the zero value if traceparent is invalid. A tracestate that is invalid or longer
// than 512 bytes is left out.
func ParseTraceparent(traceparent, tracestate string) trace.SpanContext {
	h := traceparent // 00-<32 digits>-<16 digits>-<2 digits>, more fields in later versions
	if len(h) < 55 || h[2] != '-' || h[35] != '-' || h[52] != '-' || len(h) > 55 && (h[:2] == "00" || h[55] != '-') || strings.ToLower(h[:55]) != h[:55] {
		return trace.SpanContext{}
	}
	var version, flags [1]byte
	config := trace.SpanContextConfig{Remote: true}
	if !unhex(version[:], h[:2]) || !unhex(config.TraceID[:], h[3:35]) || !unhex(config.SpanID[:], h[36:52]) || !unhex(flags[:], h[53:55]) {
		return trace.SpanContext{}
	}
	if version[0] == 0xff || version[0] == 0 && flags[0] > 3 || !config.TraceID.IsValid() || !config.SpanID.IsValid() {
		return trace.SpanContext{}
	}
	config.TraceFlags = trace.TraceFlags(flags[0]) & (trace.FlagsSampled | trace.FlagsRandom)
	if tracestate != "" && len(tracestate) <= maxTracestate {
		config.TraceState, _ = trace.ParseTraceState(tracestate)
	}
	return trace.NewSpanContext(config)
}

func unhex(to []byte, digits string) bool {
	_, err := hex.Decode(to, []byte(digits))
	return err == nil
}

// FormatTraceparent returns the header traceparent for the next service, or "" for a context
// without ids. The header tracestate is sc.TraceState().String(), and left out if that is empty.
func FormatTraceparent(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	traceID, spanID := sc.TraceID(), sc.SpanID()
	flags := byte(sc.TraceFlags() & (trace.FlagsSampled | trace.FlagsRandom))
	b := append(make([]byte, 0, 55), "00-"...)
	b = append(hex.AppendEncode(b, traceID[:]), '-')
	b = append(hex.AppendEncode(b, spanID[:]), '-', '0', hexDigits[flags])
	return string(b)
}
