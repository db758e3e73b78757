package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/telemetry"
)

// TestSpansAsTheSDK does the same to a span of ours and one of the SDK's, and compares what their
// processors are told.
func TestSpansAsTheSDK(t *testing.T) {
	t.Parallel()
	other := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{8}, TraceFlags: 1})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, use := range map[string]func(context.Context, trace.Tracer){
		"plain": func(ctx context.Context, tr trace.Tracer) {
			_, s := tr.Start(ctx, "a")
			s.SetName("b")
			s.End()
			s.SetName("late")
			s.End()
		},
		"options": func(ctx context.Context, tr trace.Tracer) {
			_, s := tr.Start(ctx, "a", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(at), trace.WithNewRoot(),
				trace.WithAttributes(attr.Int("n", 1)), trace.WithLinks(trace.Link{SpanContext: other, Attributes: []attr.KeyValue{attr.Bool("l", true)}}))
			s.AddLink(trace.Link{})
			s.AddLink(trace.Link{SpanContext: other})
			s.End(trace.WithTimestamp(at.Add(time.Minute)))
		},
		"attributes": func(ctx context.Context, tr trace.Tracer) {
			_, s := tr.Start(ctx, "a")
			s.SetAttributes(attr.String("k", "old"), attr.Int("n", 1), attr.String("", "no key"), attr.String("k", "new"))
			for i := range 200 {
				s.SetAttributes(attr.Int(fmt.Sprint("k", i), i))
			}
			s.SetAttributes(attr.String("n", "changed though full"))
			s.End()
		},
		"status": func(ctx context.Context, tr trace.Tracer) {
			_, s := tr.Start(ctx, "a")
			s.SetStatus(codes.Unset, "not kept")
			s.SetStatus(codes.Error, "why")
			s.SetStatus(codes.Ok, "not kept")
			s.SetStatus(codes.Error, "too late")
			s.End()
		},
		"events": func(ctx context.Context, tr trace.Tracer) {
			_, s := tr.Start(ctx, "a")
			for i := range 130 {
				s.AddEvent(fmt.Sprint("e", i), trace.WithTimestamp(at))
			}
			s.AddEvent("with", trace.WithTimestamp(at), trace.WithAttributes(attr.Int("a", 1)))
			s.RecordError(errors.New("broken"), trace.WithTimestamp(at))
			s.RecordError(context.DeadlineExceeded, trace.WithTimestamp(at))
			s.RecordError(nil)
			s.End()
		},
		"child": func(ctx context.Context, tr trace.Tracer) {
			ctx, s := tr.Start(trace.ContextWithRemoteSpanContext(ctx, other), "a")
			_, c := tr.Start(ctx, "child")
			c.End()
			s.End()
		},
		"panic": func(ctx context.Context, tr trace.Tracer) {
			defer func() {
				if p := recover(); p != context.Canceled {
					t.Errorf("recovered %v, want what was panicked with", p)
				}
			}()
			_, s := tr.Start(ctx, "a")
			defer s.End()
			panic(context.Canceled)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := tracetest.NewSpanRecorder(), tracetest.NewSpanRecorder()
			tel := newTelemetry(t, telemetry.Options{Service: "s", SpanProcessor: ours, Log: telemetry.LogOptions{Output: io.Discard}})
			use(t.Context(), tel.TracerProvider().Tracer("lib", trace.WithInstrumentationVersion("v1")))
			use(t.Context(), sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(theirs)).Tracer("lib", trace.WithInstrumentationVersion("v1")))
			if got, want := told(ours), told(theirs); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nthe SDK has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// told has what is the same each time that a program runs.
func told(rec *tracetest.SpanRecorder) (spans []string) {
	for _, s := range rec.Ended() {
		var events []string
		for _, e := range s.Events() {
			if e.Name != "exception" {
				e.Time = e.Time.Round(time.Minute)
			} else {
				e.Time = time.Time{}
			}
			events = append(events, fmt.Sprint(e))
		}
		attrs := s.Attributes()
		slices.SortFunc(attrs, func(a, b attr.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
		spans = append(spans, fmt.Sprint(s.Name(), s.SpanKind(), s.Status(), s.Parent().IsRemote(), s.Parent().SpanID().IsValid(),
			s.SpanContext().IsSampled(), s.EndTime().Sub(s.StartTime()).Round(time.Minute), attrs, events, s.Links(),
			s.DroppedAttributes(), s.DroppedEvents(), s.DroppedLinks(), s.InstrumentationScope()))
	}
	return spans
}

// TestSpansAreForAll uses one span from many goroutines while it ends, and its record for others.
func TestSpansAreForAll(t *testing.T) {
	t.Parallel()
	c := newCollector()
	tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t), Log: telemetry.LogOptions{Output: io.Discard}})
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		_, s := tel.Tracer().Start(t.Context(), fmt.Sprint("span", i))
		for range 4 {
			wg.Go(func() {
				s.SetAttributes(attr.Int("i", i))
				s.AddEvent("e")
				s.SetStatus(codes.Error, "x")
				_ = s.IsRecording()
				s.End()
				s.SetName("of another")
				s.SetAttributes(attr.Int("i", -1))
			})
		}
	}
	wg.Wait()
	c.arrived(t, tel, n, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	names := map[string]bool{}
	for _, s := range c.spans {
		if names[s.Name] = true; !strings.HasPrefix(s.Name, "span") || attribute(s.Attributes, "i") == "-1" {
			t.Fatalf("span %v: written to after its end", s)
		}
	}
	if len(c.spans) != n || len(names) != n {
		t.Errorf("%d spans with %d names, want %d", len(c.spans), len(names), n)
	}
}

func TestZeroSpan(t *testing.T) {
	t.Parallel()
	parent := telemetry.ParseTraceparent(goodParent, "")
	var s telemetry.Span
	s.SetAttributes(attr.Int("n", 1))
	s.AddEvent("e")
	s.RecordError(errors.New("x"))
	s.End()
	if _, child := s.TracerProvider().Tracer("").Start(t.Context(), "x"); child.IsRecording() || s.IsRecording() {
		t.Error("the zero span records")
	}
	(*telemetry.Telemetry)(nil).Begin(&s, "x", trace.SpanKindServer, parent)
	if !s.SpanContext().Equal(parent) || s.IsRecording() {
		t.Errorf("a span without telemetry has %v, want the ids of its parent %v", s.SpanContext(), parent)
	}
}

// TestContextOfASpan: OpenTelemetry finds our span in a context, and package context what it keeps
// in one.
func TestContextOfASpan(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, telemetry.Options{Service: "s", Log: telemetry.LogOptions{Output: io.Discard}})
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
	var s telemetry.Span
	tel.Begin(&s, "x", trace.SpanKindServer, trace.SpanContext{})
	ctx := s.Context(parent)
	if got := trace.SpanFromContext(ctx); got != trace.Span(&s) {
		t.Errorf("the span of the context is %v, want ours", got)
	}
	if ctx.Value(key{}) != "kept" {
		t.Error("values of the parent are lost")
	}
	below, end := context.WithTimeout(ctx, time.Hour)
	defer end()
	if trace.SpanContextFromContext(below).SpanID() != s.SpanContext().SpanID() {
		t.Error("a context below has another span")
	}
	cancel()
	<-below.Done()
	if ctx.Err() == nil || below.Err() != context.Canceled {
		t.Errorf("the end of the parent: %v and, below, %v", ctx.Err(), below.Err())
	}
}

// TestUnsampledSpansCostNothing: what is part of the work anyway needs no allocation for its span.
func TestUnsampledSpansCostNothing(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{Service: "s", Sampler: "always_off", Log: telemetry.LogOptions{Output: io.Discard}})
	var s telemetry.Span
	got := testing.AllocsPerRun(100, func() {
		tel.Begin(&s, "x", trace.SpanKindServer, trace.SpanContext{})
		s.SetAttributes(attr.String("a", "b"), attr.Int("n", 1))
		s.SetName("y")
		s.End()
	})
	if got != 0 {
		t.Errorf("%v allocations for a span, want none", got)
	}
}

// BenchmarkSpan is a sampled span with what a server says of a request, exporting included.
func BenchmarkSpan(b *testing.B) {
	c := newCollector()
	tel, err := telemetry.New(b.Context(), telemetry.Options{Service: "s", Endpoint: c.serveGRPC(b), Log: telemetry.LogOptions{Output: io.Discard}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tel.Shutdown(b.Context()) }()
	b.ReportAllocs()
	for b.Loop() {
		var s telemetry.Span
		tel.Begin(&s, "x", trace.SpanKindServer, trace.SpanContext{})
		s.SetAttributes(attr.String("http.request.method", "GET"), attr.String("url.path", "/users/1"), attr.Int("http.response.status_code", 200),
			attr.String("network.protocol.version", "1.1"), attr.String("http.route", "/users/{id}"))
		s.SetName("y")
		s.End()
	}
}
