package telemetry

import (
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// spanLimit bounds the attributes, events and links of a span, and the attributes of an event or
// link: the SDK's default for each of them.
const spanLimit = 128

// record is the content of a recorded span. Until the span ends it belongs to a Span, then to the
// queue, and after the export it is reused. Exporters see it as a span of the SDK. It embeds a nil
// interface because that has a private method.
type record struct {
	sdktrace.ReadOnlySpan

	tracer     *tracer
	name       string
	kind       trace.SpanKind
	sc, parent trace.SpanContext
	start, end time.Time
	status     sdktrace.Status

	attrs  []attribute.KeyValue
	unique bool // no key comes twice in attrs
	events []sdktrace.Event
	links  []sdktrace.Link

	droppedAttrs, droppedEvents, droppedLinks int
}

var records = sync.Pool{New: func() any { return &record{attrs: make([]attribute.KeyValue, 0, 12)} }}

func (r *record) free() {
	clear(r.attrs)
	attrs := r.attrs[:0]
	if cap(attrs) > spanLimit/4 { // do not keep the memory of a large span
		attrs = make([]attribute.KeyValue, 0, 12)
	}
	*r = record{attrs: attrs}
	records.Put(r)
}

func (r *record) set(attrs ...attribute.KeyValue) {
	for _, a := range attrs {
		if len(r.attrs) >= spanLimit {
			r.dedupe()
		}
		switch {
		case !a.Valid():
			r.droppedAttrs++
		case len(r.attrs) < spanLimit:
			r.attrs, r.unique = append(r.attrs, a), false
		case !replace(r.attrs, a):
			r.droppedAttrs++
		}
	}
}

// replace sets the value of a key that is there.
func replace(attrs []attribute.KeyValue, a attribute.KeyValue) bool {
	i := slices.IndexFunc(attrs, func(b attribute.KeyValue) bool { return a.Key == b.Key })
	if i >= 0 {
		attrs[i] = a
	}
	return i >= 0
}

func (r *record) dedupe() {
	if r.unique {
		return
	}
	kept := r.attrs[:0]
	var seen uint64 // a bit for each key: where it is not set yet, there is no need to search
	for i := range r.attrs {
		key := r.attrs[i].Key
		bit := uint64(1) << ((len(key)*7 + int(key[len(key)/2]) + int(key[len(key)-1])) & 63)
		switch {
		case seen&bit != 0 && replace(kept, r.attrs[i]):
		case len(kept) == i: // it is where it belongs
			kept = r.attrs[:i+1]
		default:
			kept = append(kept, r.attrs[i])
		}
		seen |= bit
	}
	clear(r.attrs[len(kept):])
	r.attrs, r.unique = kept, true
}

// event and link drop the oldest when there are too many.
func (r *record) event(name string, at time.Time, attrs []attribute.KeyValue) {
	if len(r.events) == spanLimit {
		r.events, r.droppedEvents = slices.Delete(r.events, 0, 1), r.droppedEvents+1
	}
	n := min(len(attrs), spanLimit)
	r.events = append(r.events, sdktrace.Event{Name: name, Time: at, Attributes: attrs[:n], DroppedAttributeCount: len(attrs) - n})
}

func (r *record) link(l trace.Link) {
	if !l.SpanContext.IsValid() && len(l.Attributes) == 0 && l.SpanContext.TraceState().Len() == 0 {
		return
	}
	if len(r.links) == spanLimit {
		r.links, r.droppedLinks = slices.Delete(r.links, 0, 1), r.droppedLinks+1
	}
	n := min(len(l.Attributes), spanLimit)
	r.links = append(r.links, sdktrace.Link{
		SpanContext: l.SpanContext, Attributes: slices.Clone(l.Attributes[:n]), DroppedAttributeCount: len(l.Attributes) - n,
	})
}

// snapshot returns a copy of r that is never reused.
func (r *record) snapshot() *record {
	c := *r
	c.attrs, c.events, c.links = slices.Clone(r.attrs), slices.Clone(r.events), slices.Clone(r.links)
	c.tidy()
	return &c
}

// The methods for exporters.

func (r *record) Name() string                                { return r.name }
func (r *record) SpanContext() trace.SpanContext              { return r.sc }
func (r *record) Parent() trace.SpanContext                   { return r.parent }
func (r *record) SpanKind() trace.SpanKind                    { return r.kind }
func (r *record) StartTime() time.Time                        { return r.start }
func (r *record) EndTime() time.Time                          { return r.end }
func (r *record) Attributes() []attribute.KeyValue            { return r.attrs }
func (r *record) Links() []sdktrace.Link                      { return r.links }
func (r *record) Events() []sdktrace.Event                    { return r.events }
func (r *record) Status() sdktrace.Status                     { return r.status }
func (r *record) InstrumentationScope() instrumentation.Scope { return r.tracer.scope }
func (r *record) Resource() *resource.Resource                { return r.tracer.provider.res }
func (r *record) DroppedAttributes() int                      { return r.droppedAttrs }
func (r *record) DroppedLinks() int                           { return r.droppedLinks }
func (r *record) DroppedEvents() int                          { return r.droppedEvents }
func (r *record) ChildSpanCount() int                         { return 0 } // which OTLP does not ask for

// InstrumentationLibrary is the old name of InstrumentationScope.
func (r *record) InstrumentationLibrary() instrumentation.Scope { return r.tracer.scope }
