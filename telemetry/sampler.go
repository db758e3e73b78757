package telemetry

import (
	"cmp"
	"fmt"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const samplerNames = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio"

func newSampler(name string, arg float64) (s sdktrace.Sampler, err error) {
	root, parentBased := strings.CutPrefix(cmp.Or(name, "parentbased_always_on"), "parentbased_")
	switch root {
	case "always_on":
		s = sdktrace.AlwaysSample()
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		if !(arg >= 0 && arg <= 1) { // written so that NaN fails too
			return nil, fmt.Errorf("telemetry: sampler %s: share %v is not between 0 and 1", name, arg)
		}
		s = sdktrace.TraceIDRatioBased(arg)
	default:
		return nil, fmt.Errorf("telemetry: unknown sampler %q; known are %s", name, samplerNames)
	}
	if parentBased {
		s = sdktrace.ParentBased(s)
	}
	return s, nil
}
