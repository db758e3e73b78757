package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// metricSender collects and sends the metrics at an interval. The SDK's own
// periodic reader would hand its errors to a global handler.
type metricSender struct {
	reader    *sdkmetric.ManualReader
	client    sdkmetric.Exporter
	collector *collector
	timeout   time.Duration

	stop chan struct{}
	done chan struct{}
	once sync.Once
	cut  context.CancelFunc // ends an export under way
}

func newMetricSender(reader *sdkmetric.ManualReader, client sdkmetric.Exporter, collector *collector, opts Options) *metricSender {
	ctx, cancel := context.WithCancel(context.Background())
	m := &metricSender{
		reader: reader, client: client, collector: collector, timeout: opts.Timeout,
		stop: make(chan struct{}), done: make(chan struct{}), cut: cancel,
	}
	go m.run(ctx, opts.MetricInterval)
	return m
}

func (m *metricSender) run(ctx context.Context, interval time.Duration) {
	defer close(m.done)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			_ = m.send(ctx) // reported by collector; the next one has it all again
		}
	}
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

// shutdown sends the last values. An export under way is cut: they are newer.
func (m *metricSender) shutdown(ctx context.Context) error {
	m.once.Do(func() { close(m.stop) })
	m.cut()
	<-m.done
	ctx, cancel := context.WithTimeout(ctx, lastTry)
	defer cancel()
	var err error
	if e := m.send(ctx); e != nil {
		err = fmt.Errorf("last metrics not sent: %w", e)
	}
	return errors.Join(err, m.client.Shutdown(ctx))
}
