package telemetry

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// A Span is a trace.Span as a value. As a field of what lives as long as the work it costs no
// allocation, sampled or not. Telemetry.Begin starts it; a Tracer makes one for each of its spans.
// It must not be copied. The zero value has no ids and records nothing.
//
// Its methods are those of trace.Span. They may be called concurrently, and do nothing after End or
// when the span is not sampled. As in the SDK, a key that is set again replaces its value, a span
// holds 128 attributes, events and links, and End in a defer statement records a panic. When the
// span is exported, texts longer than 16 KiB are cut and invalid UTF-8 is replaced.
type Span struct {
	embedded.Span
	provider *tracerProvider
	sc       trace.SpanContext

	rec atomic.Pointer[record] // nil: not recorded, or ended
	mu  sync.Mutex             // guards what rec points to
	ctx spanContext
}

var _ trace.Span = (*Span)(nil)

// spanContext is what trace.ContextWithSpan makes, as a part of the span.
type spanContext struct {
	context.Context
	span *Span
}

// spanKey is the key under which OpenTelemetry looks for a span in a context. It is private there.
var spanKey = func() any {
	var asked probe
	_ = trace.SpanFromContext(&asked)
	return asked.key
}()

// probe is a context that records the key that it is asked for.
type probe struct {
	context.Context
	key any
}

func (p *probe) Value(key any) any {
	p.key = key
	return nil
}

func (c *spanContext) Value(key any) any {
	if key == spanKey {
		return c.span
	}
	return c.Context.Value(key)
}

// Under is for package deadline: this context ends with the returned one.
func (c *spanContext) Under() context.Context { return c.Context }

// Context returns parent with s as its span, as trace.ContextWithSpan does, without an allocation.
// It may be called once, by the goroutine that began s.
func (s *Span) Context(parent context.Context) context.Context {
	s.ctx = spanContext{parent, s}
	return &s.ctx
}

// Begin starts s, which must be new, as a child of parent; a parent without ids makes it the root
// of a new trace. It does not put s into a context: Context does. With a nil Telemetry s has the
// ids of parent and records nothing.
func (t *Telemetry) Begin(s *Span, name string, kind trace.SpanKind, parent trace.SpanContext) {
	if t == nil {
		s.sc = parent
		return
	}
	if t.tracer.begin(s, parent) {
		t.tracer.record(s, name, kind, parent)
	}
}

// SpanContext implements trace.Span.
func (s *Span) SpanContext() trace.SpanContext { return s.sc }

// IsRecording implements trace.Span.
func (s *Span) IsRecording() bool { return s.rec.Load() != nil }

// TracerProvider implements trace.Span.
func (s *Span) TracerProvider() trace.TracerProvider {
	if s.provider == nil {
		return noop.NewTracerProvider()
	}
	return s.provider
}

// with lets f write to the record of s, if it has one.
func (s *Span) with(f func(r *record)) {
	if s.rec.Load() == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rec.Load(); r != nil {
		f(r)
	}
}

// SetName implements trace.Span.
func (s *Span) SetName(name string) { s.with(func(r *record) { r.name = name }) }

// SetStatus implements trace.Span.
func (s *Span) SetStatus(code codes.Code, description string) {
	s.with(func(r *record) {
		switch {
		case r.status.Code > code:
		case code == codes.Error:
			r.status = sdktrace.Status{Code: code, Description: description}
		default:
			r.status = sdktrace.Status{Code: code}
		}
	})
}

// SetAttributes implements trace.Span. Through a *Span, not a trace.Span, it does not allocate.
func (s *Span) SetAttributes(attrs ...attribute.KeyValue) {
	s.with(func(r *record) { r.set(attrs...) })
}

// AddLink implements trace.Span.
func (s *Span) AddLink(link trace.Link) { s.with(func(r *record) { r.link(link) }) }

// AddEvent implements trace.Span.
func (s *Span) AddEvent(name string, options ...trace.EventOption) {
	s.with(func(r *record) {
		config := trace.NewEventConfig(options...)
		r.event(name, config.Timestamp(), config.Attributes())
	})
}

// RecordError implements trace.Span.
func (s *Span) RecordError(err error, options ...trace.EventOption) {
	if err == nil || !s.IsRecording() {
		return
	}
	config := trace.NewEventConfig(options...)
	s.exception(err, config.StackTrace(), options)
}

func (s *Span) exception(of any, stack bool, options []trace.EventOption) {
	kind := reflect.TypeOf(of)
	name := kind.String()
	if kind.PkgPath() != "" {
		name = kind.PkgPath() + "." + kind.Name()
	}
	attrs := []attribute.KeyValue{
		attribute.String("exception.type", name),
		attribute.String("exception.message", fmt.Sprint(of)),
	}
	if stack {
		text := make([]byte, 2<<10)
		attrs = append(attrs, attribute.String("exception.stacktrace", string(text[:runtime.Stack(text, false)])))
	}
	s.AddEvent("exception", append(slices.Clip(options), trace.WithAttributes(attrs...))...)
}

// End implements trace.Span.
func (s *Span) End(options ...trace.SpanEndOption) {
	if s.rec.Load() == nil {
		return
	}
	if p := recover(); p != nil {
		defer panic(p)
		config := trace.NewSpanEndConfig(options...)
		s.exception(p, config.StackTrace(), nil)
	}
	s.mu.Lock()
	r := s.rec.Swap(nil)
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.end = r.start.Add(time.Since(r.start)) // by the monotonic clock
	if len(options) > 0 {
		if config := trace.NewSpanEndConfig(options...); !config.Timestamp().IsZero() {
			r.end = config.Timestamp()
		}
	}
	s.provider.ended(r)
}
