package telemetry

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

const samplerNames = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio"

// sampler decides whether a span of a trace is recorded, given the context of its parent.
type sampler func(parent trace.SpanContext, id trace.TraceID) bool

func newSampler(name string, arg float64) (sampler, error) {
	root, parentBased := strings.CutPrefix(cmp.Or(name, "parentbased_always_on"), "parentbased_")
	var s sampler
	switch root {
	case "always_on":
		s = func(trace.SpanContext, trace.TraceID) bool { return true }
	case "always_off":
		s = func(trace.SpanContext, trace.TraceID) bool { return false }
	case "traceidratio":
		if !(arg >= 0 && arg <= 1) { // written so that NaN fails too
			return nil, fmt.Errorf("telemetry: sampler %s: share %v is not between 0 and 1", name, arg)
		}
		// As all of OpenTelemetry for Go: services in one trace must decide alike.
		bound := uint64(arg * (1 << 63))
		s = func(_ trace.SpanContext, id trace.TraceID) bool { return binary.BigEndian.Uint64(id[8:])>>1 < bound }
	default:
		return nil, fmt.Errorf("telemetry: unknown sampler %q; known are %s", name, samplerNames)
	}
	if !parentBased {
		return s, nil
	}
	return func(parent trace.SpanContext, id trace.TraceID) bool {
		if parent.IsValid() {
			return parent.IsSampled()
		}
		return s(parent, id)
	}, nil
}
