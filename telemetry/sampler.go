package telemetry

import (
	"encoding/binary"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

const samplerNames = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio"

// sampler decides before a span exists, so that a span that is not sampled
// never reaches the SDK.
type sampler struct {
	parentBased bool
	bound       uint64 // traces whose 63 low random bits are below it are sampled
}

func newSampler(name string, arg float64) (sampler, error) {
	if name == "" {
		name = "parentbased_always_on"
	}
	root, parentBased := strings.CutPrefix(name, "parentbased_")
	s := sampler{parentBased: parentBased}
	switch root {
	case "always_on":
		s.bound = 1 << 63
	case "always_off":
	case "traceidratio":
		if !(arg >= 0 && arg <= 1) { // written so that NaN fails too
			return s, fmt.Errorf("telemetry: sampler %s: share %v is not between 0 and 1", name, arg)
		}
		// The same arithmetic as every OpenTelemetry SDK, so that services in
		// other languages keep the same traces.
		s.bound = uint64(arg * (1 << 63))
	default:
		return s, fmt.Errorf("telemetry: unknown sampler %q; known are %s", name, samplerNames)
	}
	return s, nil
}

func (s sampler) sample(parent trace.SpanContext, id trace.TraceID) bool {
	if s.parentBased && parent.IsValid() {
		return parent.IsSampled()
	}
	return binary.BigEndian.Uint64(id[8:])>>1 < s.bound
}
