package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// tracerProvider samples before the SDK does: a span that nobody will export is a pair of ids.
type tracerProvider struct {
	embedded.TracerProvider
	sampler sdktrace.Sampler
	sdk     *sdktrace.TracerProvider // nil: nobody wants the spans
}

func newSDK(res *resource.Resource, processors []sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // tracerProvider has decided already
		sdktrace.WithIDGenerator(idGenerator{}),
	}
	for _, p := range processors {
		opts = append(opts, sdktrace.WithSpanProcessor(p))
	}
	return sdktrace.NewTracerProvider(opts...)
}

func (p *tracerProvider) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	t := &tracer{provider: p}
	if p.sdk != nil {
		t.sdk = p.sdk.Tracer(name, opts...)
	}
	return t
}

type tracer struct {
	embedded.Tracer
	provider *tracerProvider
	sdk      trace.Tracer
}

func (t *tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if ctx == nil {
		ctx = context.Background()
	}
	if len(opts) > 0 {
		if config := trace.NewSpanStartConfig(opts...); config.NewRoot() {
			ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
		}
	}
	parent := trace.SpanContextFromContext(ctx)
	id := parent.TraceID()
	root := !id.IsValid()
	if root {
		id = newTraceID()
	}
	decision := t.provider.sampler.ShouldSample(sdktrace.SamplingParameters{ParentContext: ctx, TraceID: id}).Decision
	sampled := decision == sdktrace.RecordAndSample
	if sampled && t.sdk != nil {
		if root {
			ctx = context.WithValue(ctx, traceIDKey{}, id)
		}
		return t.sdk.Start(ctx, name, opts...)
	}
	flags := parent.TraceFlags().WithSampled(sampled)
	s := &idSpan{provider: t.provider, sc: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: newSpanID(), TraceFlags: flags, TraceState: parent.TraceState(),
	})}
	return trace.ContextWithSpan(ctx, s), s
}

// idSpan is a span that is not recorded: it has ids, and forgets all else.
type idSpan struct {
	noop.Span
	provider *tracerProvider
	sc       trace.SpanContext
}

func (s *idSpan) SpanContext() trace.SpanContext       { return s.sc }
func (s *idSpan) TracerProvider() trace.TracerProvider { return s.provider }

type traceIDKey struct{}

// idGenerator gives the SDK the trace id that the sampler has decided on.
type idGenerator struct{}

func (idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if id, ok := ctx.Value(traceIDKey{}).(trace.TraceID); ok {
		return id, newSpanID()
	}
	return newTraceID(), newSpanID()
}

func (idGenerator) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newTraceID() (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	for !id.IsValid() || binary.BigEndian.Uint64(id[8:]) == 0 {
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
