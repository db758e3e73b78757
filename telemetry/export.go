package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	promotel "go.opentelemetry.io/contrib/bridges/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends the three signals of one service to one collector.
type exporter struct {
	metrics *metricSender // nil: none are sent
	spans   *queue[*record]
	records *queue[logRecord] // nil: none are sent
	logs    slog.Handler      // to records
	close   func(context.Context) error

	collector *collector
}

func newExporter(ctx context.Context, opts Options, res *resource.Resource, reg *Registry, log *slog.Logger) (*exporter, error) {
	out, err := openClient(ctx, opts)
	if err != nil {
		return nil, err
	}
	collector := newCollector(opts.Endpoint, log)
	e := &exporter{close: out.close, collector: collector}
	spans := make([]sdktrace.ReadOnlySpan, 0, batchLen)
	e.spans = newQueue("spans", opts.Timeout, reg, func(ctx context.Context, batch []*record) error {
		spans = spans[:0]
		for _, r := range batch {
			r.tidy()
			spans = append(spans, r)
		}
		err := collector.report(ctx, "traces", func() error { return out.Spans.ExportSpans(ctx, spans) })
		for _, r := range batch {
			r.free()
		}
		return err
	})
	if out.Logs != nil {
		logs := newExportHandler(opts.Log.Level, res)
		e.records = newQueue("logs", opts.Timeout, reg, func(ctx context.Context, batch []logRecord) error {
			return collector.report(ctx, "logs", func() error { return out.Logs.Export(ctx, logs.sink.convert(batch)) })
		})
		logs.queue = e.records
		e.logs = logs
	}
	if out.Metrics != nil {
		reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(promotel.NewMetricProducer(promotel.WithGatherer(reg))))
		// The provider only lends its resource to the reader.
		_ = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader))
		e.metrics = newMetricSender(reader, out.Metrics, collector, opts)
	}
	return e, nil
}

// shutdown flushes the signals concurrently: one that hangs takes no time from others.
func (e *exporter) shutdown(ctx context.Context) error {
	e.collector.stopping.Store(true)
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	var errs [3]error
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = e.spans.shutdown(ctx) })
	if e.records != nil {
		wg.Go(func() { errs[1] = e.records.shutdown(ctx) })
	}
	if e.metrics != nil {
		wg.Go(func() { errs[2] = e.metrics.shutdown(ctx) })
	}
	wg.Wait()
	return errors.Join(errs[0], errs[1], errs[2], e.close(ctx))
}
