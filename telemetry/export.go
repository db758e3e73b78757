package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	promotel "go.opentelemetry.io/contrib/bridges/prometheus"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends the three signals of one service to one collector.
type exporter struct {
	logs    *sdklog.LoggerProvider
	metrics *metricSender

	spans   *queue[sdktrace.ReadOnlySpan]
	records *queue[sdklog.Record]
	close   func(context.Context) error
}

func newExporter(ctx context.Context, opts Options, res *resource.Resource, reg *prometheus.Registry, log *slog.Logger) (*exporter, error) {
	out, err := openClient(ctx, opts)
	if err != nil {
		return nil, err
	}
	collector := newCollector(opts.Endpoint, log)
	e := &exporter{close: out.close}
	e.spans = newQueue("spans", opts.Timeout, droppedCounter(reg, "spans"), func(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
		return collector.report(ctx, "traces", func() error { return out.Spans.ExportSpans(ctx, validSpans(batch)) })
	})
	e.records = newQueue("log records", opts.Timeout, droppedCounter(reg, "logs"), func(ctx context.Context, batch []sdklog.Record) error {
		return collector.report(ctx, "logs", func() error { return out.Logs.Export(ctx, validRecords(batch)) })
	})
	e.logs = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(logProcessor{e.records}))
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(promotel.NewMetricProducer(promotel.WithGatherer(reg))))
	// The provider only lends its resource to the reader.
	_ = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader))
	e.metrics = newMetricSender(reader, out.Metrics, collector, opts)
	return e, nil
}

func (e *exporter) logHandler(opts Options) slog.Handler {
	return levelHandler{
		Handler: otelslog.NewHandler("github.com/kaptar/kaptar", otelslog.WithLoggerProvider(e.logs)),
		level:   opts.Log.Level,
	}
}

// shutdown flushes the three signals side by side, so that one that hangs does
// not eat the time of the others.
func (e *exporter) shutdown(ctx context.Context) error {
	var errs [3]error
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = e.spans.shutdown(ctx) })
	wg.Go(func() { errs[1] = e.records.shutdown(ctx) })
	wg.Go(func() { errs[2] = e.metrics.shutdown(ctx) })
	wg.Wait()
	return errors.Join(errs[0], errs[1], errs[2], e.close(ctx))
}

func droppedCounter(reg prometheus.Registerer, what string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "telemetry_" + what + "_dropped_total",
		Help: "Telemetry (" + what + ") lost because the queue was full or the collector did not take it.",
	}, []string{"reason"})
	reg.MustRegister(c)
	return c
}

type spanProcessor struct{ q *queue[sdktrace.ReadOnlySpan] }

func (spanProcessor) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (p spanProcessor) OnEnd(s sdktrace.ReadOnlySpan)                 { p.q.put(s) }
func (spanProcessor) ForceFlush(context.Context) error                { return nil }
func (spanProcessor) Shutdown(context.Context) error                  { return nil }

type logProcessor struct{ q *queue[sdklog.Record] }

func (logProcessor) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }
func (logProcessor) ForceFlush(context.Context) error                       { return nil }
func (logProcessor) Shutdown(context.Context) error                         { return nil }
func (p logProcessor) OnEmit(_ context.Context, r *sdklog.Record) error {
	p.q.put(r.Clone())
	return nil
}

// levelHandler gives a handler the level of the local log.
type levelHandler struct {
	slog.Handler
	level slog.Leveler
}

func (h levelHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{h.Handler.WithAttrs(attrs), h.level}
}

func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{h.Handler.WithGroup(name), h.level}
}
