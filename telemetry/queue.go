package telemetry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	queueLen      = 8192
	batchLen      = 512
	batchInterval = time.Second
	lastTry       = 2 * time.Second // how long a collector may keep each export of a shutdown waiting
)

// queue sends items in batches. What does not fit, or cannot be sent, is dropped and counted.
type queue[T any] struct {
	name    string
	items   chan T
	send    func(context.Context, []T) error
	timeout time.Duration      // of one batch
	failing bool               // the last batch was not taken
	full    prometheus.Counter // of items dropped
	failed  prometheus.Counter // of items dropped

	mu     sync.RWMutex // held for reading while putting, so that stop sees the last item
	closed bool
	cancel context.CancelFunc // ends an export under way
	stop   chan context.Context
	done   chan error
}

func newQueue[T any](name string, timeout time.Duration, reg prometheus.Registerer, send func(context.Context, []T) error) *queue[T] {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "telemetry_" + name + "_dropped_total",
		Help: "Telemetry (" + name + ") lost because the queue was full or the collector did not take it.",
	}, []string{"reason"})
	reg.MustRegister(dropped)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:gosec // G118: shutdown calls it
	q := &queue[T]{
		name: name, items: make(chan T, queueLen), send: send, timeout: timeout,
		full: dropped.WithLabelValues("queue_full"), failed: dropped.WithLabelValues("export_failed"),
		cancel: cancel, stop: make(chan context.Context, 1), done: make(chan error, 1),
	}
	go q.run(ctx)
	return q
}

func (q *queue[T]) put(item T) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	items := q.items
	if q.closed {
		items = nil // which takes nothing
	}
	select {
	case items <- item:
	default:
		q.full.Inc()
	}
}

func (q *queue[T]) run(ctx context.Context) {
	defer q.cancel()
	tick := time.NewTicker(batchInterval)
	defer tick.Stop()
	batch := make([]T, 0, batchLen)
	for {
		var full bool
		select {
		case last := <-q.stop:
			if q.failing {
				last = ctx // all of lastTry may be over
			}
			q.done <- q.drain(last, batch)
			return
		case <-tick.C:
			full = len(batch) > 0
		case item := <-q.items:
			batch = append(batch, item)
			full = len(batch) == batchLen
		}
		if full {
			_ = q.flush(ctx, batch, q.timeout) // counted and reported by send
			clear(batch)
			batch = batch[:0]
		}
	}
}

func (q *queue[T]) flush(ctx context.Context, batch []T, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := q.send(ctx, batch)
	q.failing = err != nil
	if err != nil {
		q.failed.Add(float64(len(batch)))
	}
	return err
}

// drain sends what is left, and gives up at the first batch that fails.
func (q *queue[T]) drain(ctx context.Context, batch []T) error {
	for {
		for len(batch) < batchLen && len(q.items) > 0 {
			batch = append(batch, <-q.items)
		}
		if len(batch) == 0 {
			return nil
		}
		if err := q.flush(ctx, batch, min(q.timeout, lastTry)); err != nil {
			lost := len(batch) + len(q.items)
			q.failed.Add(float64(len(q.items)))
			return fmt.Errorf("%d %s not sent: %w", lost, q.name, err)
		}
		batch = batch[:0]
	}
}

// shutdown, which is called once, sends what is queued and returns when that is done or ctx ends.
func (q *queue[T]) shutdown(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	context.AfterFunc(ctx, q.cancel) // an export under way may wait for a collector that is gone
	time.AfterFunc(lastTry, q.cancel)
	q.stop <- ctx
	select {
	case err := <-q.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%d %s not sent: %w", len(q.items), q.name, context.Cause(ctx))
	}
}
