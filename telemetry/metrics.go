package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/kaptar/kaptar/internal/steady"
)

// metricSender sends the metrics at an interval. The SDK's reader has a global error handler.
type metricSender struct {
	reader    *sdkmetric.ManualReader
	client    sdkmetric.Exporter
	collector *collector
	timeout   time.Duration

	stop context.CancelFunc // ends the loop and an export under way
	loop sync.WaitGroup
}

func newMetricSender(reader *sdkmetric.ManualReader, client sdkmetric.Exporter, collector *collector, opts Options) *metricSender {
	ctx, stop := context.WithCancel(context.Background())
	m := &metricSender{reader: reader, client: client, collector: collector, timeout: opts.Timeout, stop: stop}
	m.loop.Go(func() {
		for steady.Sleep(ctx, opts.MetricInterval) {
			_ = m.send(ctx) // reported by collector; the next one has it all again
		}
	})
	return m
}

func (m *metricSender) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	var rm metricdata.ResourceMetrics
	if err := m.reader.Collect(ctx, &rm); err != nil {
		return err
	}
	return m.collector.report(ctx, "metrics", func() error { return m.client.Export(ctx, &rm) })
}

// shutdown sends the last values. It cuts an export under way, since these are newer.
func (m *metricSender) shutdown(ctx context.Context) error {
	m.stop()
	m.loop.Wait()
	ctx, cancel := context.WithTimeout(ctx, lastTry)
	defer cancel()
	err := m.send(ctx)
	if err != nil {
		err = fmt.Errorf("last metrics not sent: %w", err)
	}
	return errors.Join(err, m.client.Shutdown(ctx))
}
