package calls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// queueLen is the queue of the SDK's batchers, the same as kaptar's: the default would lose spans.
const queueLen = 8192

// Spans is an exporter that counts.
type Spans struct {
	server, client atomic.Int64

	mu      sync.Mutex
	keep    bool
	clients map[trace.SpanID]bool
	parents []trace.SpanID // of server spans
}

// ExportSpans counts spans by kind.
func (s *Spans) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range spans {
		switch span.SpanKind() {
		case trace.SpanKindServer:
			s.server.Add(1)
			if s.keep {
				s.parents = append(s.parents, span.Parent().SpanID())
			}
		case trace.SpanKindClient:
			s.client.Add(1)
			if s.keep {
				s.clients[span.SpanContext().SpanID()] = true
			}
		default:
		}
	}
	return nil
}

// Shutdown does nothing.
func (*Spans) Shutdown(context.Context) error { return nil }

// Provider returns a provider of the SDK that samples new traces as env says, and exports to
// env.Spans through the SDK's batcher; and what flushes that.
func (env *Env) Provider() (p *sdktrace.TracerProvider, flush func(context.Context, int64) error) {
	p = sdktrace.NewTracerProvider(sdktrace.WithBatcher(env.Spans, sdktrace.WithMaxQueueSize(queueLen)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(env.Sampling))))
	return p, func(ctx context.Context, _ int64) error { return p.ForceFlush(ctx) }
}

// linked returns how many of the server spans are children of a client span, and forgets them.
func (s *Spans) linked() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, parent := range s.parents {
		if s.clients[parent] {
			n++
		}
	}
	s.keep, s.clients, s.parents = false, nil, nil
	return n
}

// Lines is a log that counts its lines.
type Lines struct{ n atomic.Int64 }

// Write counts the lines of p.
func (l *Lines) Write(p []byte) (int, error) {
	l.n.Add(int64(bytes.Count(p, []byte{'\n'})))
	return len(p), nil
}

// Sum adds up the values of a counter, or the counts of a histogram, whatever its labels.
func Sum(g prometheus.Gatherer, name string) (sum float64, err error) {
	families, err := g.Gather()
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum, err
}

// counts are what a stack has left behind.
type counts struct {
	serverSpans, clientSpans, lines int64
	serverMetrics, clientMetrics    float64
}

// counts flushes the spans and reads all counters.
func (r *runner) counts(ctx context.Context) (c counts, err error) {
	if r.Flush != nil {
		err = r.Flush(ctx, int64(float64(r.calls.Load())*r.spansEach()*r.env.Sampling))
	}
	if r.Metrics != nil {
		var failed error
		c.serverMetrics, c.clientMetrics, failed = r.Metrics()
		err = errors.Join(err, failed)
	}
	c.serverSpans, c.clientSpans, c.lines = r.env.Spans.server.Load(), r.env.Spans.client.Load(), r.env.Lines.n.Load()
	return c, err
}

func (r *runner) spansEach() float64 { return float64(r.Features.ServerSpans + r.Features.ClientSpans) }

var errProof = errors.New("a feature is not on")

// proofCalls are few enough to keep the ids of all their spans.
const proofCalls = 200

// prove makes the first calls. With everything sampled, it checks that each has left all spans, and
// that those of the server are children of the client's.
func (r *runner) prove(ctx context.Context) error {
	if r.Use != nil {
		r.Use()
	}
	r.env.Spans.keep, r.env.Spans.clients = r.env.Sampling == 1, make(map[trace.SpanID]bool)
	r.before.lines = r.env.Lines.n.Load()
	if r.Metrics != nil {
		r.before.serverMetrics, r.before.clientMetrics, _ = r.Metrics() // those of go-zero are global
	}
	for range proofCalls {
		if err := r.Call(ctx); err != nil {
			return err
		}
	}
	r.calls.Add(proofCalls)
	now, err := r.counts(ctx)
	if err != nil || r.env.Sampling != 1 {
		return err
	}
	linked := r.env.Spans.linked()
	if f := r.Features; now.serverSpans != proofCalls*int64(f.ServerSpans) || now.clientSpans != proofCalls*int64(f.ClientSpans) || linked != now.serverSpans {
		return fmt.Errorf("%w: %d calls left %d server spans, %d of them children of one of %d client spans",
			errProof, proofCalls, now.serverSpans, linked, now.clientSpans)
	}
	return nil
}

// check compares what was counted with the calls that were made, and returns the share of spans that
// were not lost in the queues, or 0 if there are none.
func (r *runner) check(ctx context.Context) (kept float64, err error) {
	now, err := r.counts(ctx)
	if err != nil {
		return 0, err
	}
	f, n := r.Features, r.calls.Load()
	for _, c := range []struct {
		what string
		got  float64
		each int
	}{
		{"server's metrics", now.serverMetrics - r.before.serverMetrics, f.ServerMetrics},
		{"client's metrics", now.clientMetrics - r.before.clientMetrics, f.ClientMetrics},
		{"lines of log", float64(now.lines - r.before.lines), f.Lines},
	} {
		// Some stacks write a line of their own now and then, and a retried call is two attempts.
		if want := float64(n) * float64(c.each); c.got < want || c.got > want*1.001+10 {
			return 0, fmt.Errorf("%w: %.0f %s after %d calls, want %.0f", errProof, c.got, c.what, n, want)
		}
	}
	want := float64(n) * r.spansEach() * r.env.Sampling
	if want == 0 {
		return 0, nil
	}
	kept = float64(now.serverSpans+now.clientSpans) / want
	if r.env.Sampling < 1 && want > 1000 && (kept < 0.7 || kept > 1.3) {
		return 0, fmt.Errorf("%w: %.2f of the spans that were expected with sampling %g", errProof, kept, r.env.Sampling)
	}
	return kept, nil
}
