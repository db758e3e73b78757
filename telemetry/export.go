package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	promotel "go.opentelemetry.io/contrib/bridges/prometheus"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// exporter sends the three signals of one service to one collector.
type exporter struct {
	traces  *sdktrace.TracerProvider
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
	outage := &outage{log: log, endpoint: opts.Endpoint, failing: map[string]bool{}, unwanted: map[string]bool{}}
	e := &exporter{close: out.close}
	e.spans = newQueue("spans", opts.Timeout, droppedCounter(reg, "spans"), func(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
		return outage.report(ctx, "traces", func() error { return out.Spans.ExportSpans(ctx, batch) })
	})
	e.records = newQueue("log records", opts.Timeout, droppedCounter(reg, "logs"), func(ctx context.Context, batch []sdklog.Record) error {
		return outage.report(ctx, "logs", func() error { return out.Logs.Export(ctx, batch) })
	})
	e.traces = sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // tracerProvider has decided already
		sdktrace.WithIDGenerator(idGenerator{}),
		sdktrace.WithSpanProcessor(spanProcessor{e.spans}),
	)
	e.logs = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(logProcessor{e.records}))
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(promotel.NewMetricProducer(promotel.WithGatherer(reg))))
	// The provider only lends its resource to the reader.
	_ = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader))
	e.metrics = newMetricSender(reader, out.Metrics, outage, opts)
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

// outage logs the begin and the end of a time in which exports fail, and
// nothing in between.
type outage struct {
	log      *slog.Logger
	endpoint string

	mu       sync.Mutex
	failing  map[string]bool
	since    time.Time
	unwanted map[string]bool // signals that the collector has no service for, as Jaeger for metrics and logs
}

// is reports whether the last export of signal failed.
func (o *outage) is(signal string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing[signal]
}

// report exports what belongs to signal, unless the collector does not take such, takes note of how it went and returns the error.
func (o *outage) report(ctx context.Context, signal string, export func() error) error {
	o.mu.Lock()
	unwanted := o.unwanted[signal]
	o.mu.Unlock()
	if unwanted {
		return nil
	}
	err := export()
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return err // we are stopping: no outage
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case isUnwanted(err):
		o.unwanted[signal] = true
		delete(o.failing, signal)
		o.log.Info("the collector takes no "+signal+", so none are sent until the next start", "endpoint", o.endpoint)
		return nil
	case err != nil && len(o.failing) == 0:
		o.since = time.Now()
		o.log.Warn("telemetry cannot be exported; the service goes on, what does not fit the queue is dropped and counted",
			"endpoint", o.endpoint, "signal", signal, "error", err)
		fallthrough
	case err != nil:
		o.failing[signal] = true
	case o.failing[signal]:
		if delete(o.failing, signal); len(o.failing) == 0 {
			o.log.Info("telemetry is exported again", "endpoint", o.endpoint, "after", time.Since(o.since))
		}
	}
	return err
}

// isUnwanted reports whether err is a collector's answer that it has no service for a signal: UNIMPLEMENTED over gRPC, 404 over HTTP,
// for which the clients have no type.
func isUnwanted(err error) bool {
	return err != nil && (status.Code(err) == codes.Unimplemented || strings.Contains(err.Error(), "404 Not Found"))
}
