package telemetry

import (
	"context"
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"
)

const (
	traceparentKey = "traceparent"
	tracestateKey  = "tracestate"
	// maxTracestate bounds what is parsed of a header that comes from outside;
	// W3C asks for 512 bytes at least.
	maxTracestate = 1024
)

// Extract returns ctx with the caller's span as remote parent, read from the
// W3C headers traceparent and tracestate through get, which must return "" for
// a header that is missing and must not mind upper or lower case. Headers that
// are malformed are ignored, and ctx comes back as it was.
func Extract(ctx context.Context, get func(key string) string) context.Context {
	sc, ok := parseTraceparent(get(traceparentKey))
	if !ok {
		return ctx
	}
	sc.Remote = true
	if s := get(tracestateKey); s != "" && len(s) <= maxTracestate {
		if state, err := trace.ParseTraceState(s); err == nil {
			sc.TraceState = state
		}
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(sc))
}

// Inject hands the W3C headers for the span of ctx to set, for the next
// service to Extract. Without a span it calls nothing.
func Inject(ctx context.Context, set func(key, value string)) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return
	}
	traceID, spanID := sc.TraceID(), sc.SpanID()
	var b [55]byte
	copy(b[:], "00-")
	hex.Encode(b[3:35], traceID[:])
	b[35] = '-'
	hex.Encode(b[36:52], spanID[:])
	copy(b[52:], "-00")
	if sc.IsSampled() {
		b[54] = '1'
	}
	set(traceparentKey, string(b[:]))
	if s := sc.TraceState().String(); s != "" {
		set(tracestateKey, s)
	}
}

// parseTraceparent reads "00-<32 hex>-<16 hex>-<2 hex>". A later version may
// append fields behind another dash; version ff is forbidden.
func parseTraceparent(s string) (sc trace.SpanContextConfig, ok bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return sc, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], s[:2]) || version[0] == 0xff {
		return sc, false
	}
	if len(s) > 55 && (version[0] == 0 || s[55] != '-') {
		return sc, false
	}
	if !decodeHex(sc.TraceID[:], s[3:35]) || !decodeHex(sc.SpanID[:], s[36:52]) || !decodeHex(flags[:], s[53:55]) {
		return sc, false
	}
	sc.TraceFlags = trace.TraceFlags(flags[0]) & trace.FlagsSampled
	return sc, sc.TraceID.IsValid() && sc.SpanID.IsValid()
}

// decodeHex fills dst from lower-case hexadecimal; W3C forbids upper case.
func decodeHex(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := nibble(s[2*i]), nibble(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
