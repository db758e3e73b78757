package telemetry

import (
	"context"
	"log/slog"
	"sync"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

// exportHandler queues records for the collector. OpenTelemetry's bridge, which costs more than the
// rest of a log line, runs only when they are exported.
type exportHandler struct {
	queue  *queue[logRecord]
	level  slog.Leveler
	sink   *sink
	bridge slog.Handler // with the attributes and groups of With; ends in sink
}

// logRecord is a queued record: as it was logged, or converted.
type logRecord struct {
	bridge slog.Handler // nil when converted is set
	span   trace.SpanContext
	record slog.Record

	converted *sdklog.Record
}

func newExportHandler(level slog.Leveler, res *resource.Resource) *exportHandler {
	h := &exportHandler{level: level, sink: new(sink)}
	provider := sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(h.sink))
	h.bridge = otelslog.NewHandler(tracerName, otelslog.WithLoggerProvider(provider))
	return h
}

func (h *exportHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *exportHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &exportHandler{h.queue, h.level, h.sink, h.bridge.WithAttrs(attrs)}
}

func (h *exportHandler) WithGroup(name string) slog.Handler {
	return &exportHandler{h.queue, h.level, h.sink, h.bridge.WithGroup(name)}
}

func (h *exportHandler) Handle(ctx context.Context, r slog.Record) error {
	item := logRecord{bridge: h.bridge, span: trace.SpanContextFromContext(ctx), record: r}
	if !isPlain(r) { // the target of a pointer may change before the export
		for _, c := range h.sink.convert([]logRecord{item}) {
			item = logRecord{converted: &c}
		}
	}
	h.queue.put(item)
	return nil
}

// isPlain reports whether no attribute of r points to anything.
func isPlain(r slog.Record) bool {
	plain := true
	r.Attrs(func(a slog.Attr) bool {
		switch a.Value.Kind() {
		case slog.KindAny, slog.KindLogValuer, slog.KindGroup:
			plain = false
		}
		return plain
	})
	return plain
}

// sink is where the bridge ends.
type sink struct {
	mu      sync.Mutex // held while the bridge runs
	records []sdklog.Record
	span    Span // whose context the bridge is given
}

// convert returns what can be exported of a batch.
func (s *sink) convert(batch []logRecord) []sdklog.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = make([]sdklog.Record, 0, len(batch))
	ctx := s.span.Context(context.Background())
	for _, r := range batch {
		if r.converted != nil {
			s.records = append(s.records, *r.converted)
			continue
		}
		s.span.sc = r.span
		_ = r.bridge.Handle(ctx, r.record) // OnEmit does not fail
	}
	return validRecords(s.records)
}

func (s *sink) OnEmit(_ context.Context, r *sdklog.Record) error {
	s.records = append(s.records, r.Clone())
	return nil
}

func (s *sink) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }
func (s *sink) ForceFlush(context.Context) error                       { return nil }
func (s *sink) Shutdown(context.Context) error                         { return nil }
