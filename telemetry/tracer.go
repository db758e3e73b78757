package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
)

// tracerProvider makes spans of our own rather than the SDK's: a span that is not exported is only
// a pair of ids, and the content of a sampled one is a reused record.
type tracerProvider struct {
	embedded.TracerProvider
	sampled   sampler
	res       *resource.Resource
	processor interface{ OnEnd(sdktrace.ReadOnlySpan) } // nil: none
	queue     *queue[*record]                           // nil: no endpoint
}

func (p *tracerProvider) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return p.tracer(name, opts...)
}

func (p *tracerProvider) tracer(name string, opts ...trace.TracerOption) *tracer {
	config := trace.NewTracerConfig(opts...)
	return &tracer{provider: p, scope: instrumentation.Scope{
		Name: name, Version: config.InstrumentationVersion(), SchemaURL: config.SchemaURL(), Attributes: config.InstrumentationAttributes(),
	}}
}

// ended takes the record of a span.
func (p *tracerProvider) ended(r *record) {
	if p.processor != nil {
		p.processor.OnEnd(r.snapshot())
	}
	if p.queue == nil || !p.queue.put(r) {
		r.free()
	}
}

type tracer struct {
	embedded.Tracer
	provider *tracerProvider
	scope    instrumentation.Scope
}

func (t *tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if ctx == nil {
		ctx = context.Background()
	}
	s, config, parent := new(Span), trace.NewSpanStartConfig(opts...), trace.SpanContextFromContext(ctx)
	if config.NewRoot() {
		parent = trace.SpanContext{}
	}
	if t.begin(s, parent) {
		r := t.record(s, name, config.SpanKind(), parent)
		r.set(config.Attributes()...)
		for _, l := range config.Links() {
			r.link(l)
		}
		if at := config.Timestamp(); !at.IsZero() {
			r.start = at
		}
	}
	return s.Context(ctx), s
}

// begin gives s its ids, and reports whether it is to be recorded.
func (t *tracer) begin(s *Span, parent trace.SpanContext) bool {
	id := parent.TraceID()
	if !id.IsValid() {
		id = newTraceID()
	}
	p := t.provider
	sampled := p.sampled(parent, id)
	s.provider = p
	s.sc = trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: newSpanID(), TraceFlags: parent.TraceFlags().WithSampled(sampled), TraceState: parent.TraceState(),
	})
	return sampled && (p.queue != nil || p.processor != nil)
}

func (t *tracer) record(s *Span, name string, kind trace.SpanKind, parent trace.SpanContext) *record {
	r := records.Get().(*record)
	r.tracer, r.name, r.kind, r.sc, r.parent, r.start = t, name, trace.ValidateSpanKind(kind), s.sc, parent, time.Now()
	s.rec.Store(r)
	return r
}

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
