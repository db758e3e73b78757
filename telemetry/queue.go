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
	flushTime     = 5 * time.Second // and all of them
)

// queue sends items in batches. Items that do not fit, or cannot be sent, are dropped and counted.
type queue[T any] struct {
	name    string
	send    func(context.Context, []T) error
	timeout time.Duration      // of one batch
	failing bool               // the last batch was not taken
	cut     int                // items that were under way when the stop began, and did not arrive
	why     error              // of the last of them
	full    prometheus.Counter // of items dropped
	failed  prometheus.Counter // of items dropped

	mu     sync.Mutex
	items  []T // that wait
	closed bool
	filled chan struct{} // holds a token when a batch may be ready: the sender sleeps until then

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
		name: name, send: send, timeout: timeout, filled: make(chan struct{}, 1),
		full: dropped.WithLabelValues("queue_full"), failed: dropped.WithLabelValues("export_failed"),
		cancel: cancel, stop: make(chan context.Context, 1), done: make(chan error, 1),
	}
	go q.run(ctx)
	return q
}

func (q *queue[T]) put(item T) bool {
	q.mu.Lock()
	taken := !q.closed && len(q.items) < queueLen
	if taken {
		q.items = append(q.items, item)
	}
	filled := len(q.items)%batchLen == 0
	q.mu.Unlock()
	if !taken {
		q.full.Inc()
	}
	if taken && filled {
		q.wake()
	}
	return taken
}

func (q *queue[T]) wake() {
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// take moves the oldest items into batch, which it returns, and reports whether a full batch waits.
func (q *queue[T]) take(batch []T) (_ []T, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.items), batchLen)
	batch = append(batch, q.items[:n]...)
	left := copy(q.items, q.items[n:])
	clear(q.items[left:])
	q.items = q.items[:left]
	return batch, left >= batchLen
}

func (q *queue[T]) stopping() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue[T]) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func (q *queue[T]) run(ctx context.Context) {
	defer q.cancel()
	tick := time.NewTicker(batchInterval)
	defer tick.Stop()
	batch := make([]T, 0, batchLen)
	for {
		select {
		case last := <-q.stop:
			if q.failing {
				last = ctx // lastTry may be used up
			}
			q.done <- q.drain(last, batch)
			return
		case <-tick.C:
		case <-q.filled:
		}
		var more bool
		if batch, more = q.take(batch); len(batch) > 0 {
			// Counted, and reported by send until the stop begins.
			if err := q.flush(ctx, batch, q.timeout); err != nil && q.stopping() {
				q.cut, q.why = q.cut+len(batch), err
			}
			clear(batch)
			batch = batch[:0]
		}
		if more {
			q.wake()
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
		batch, _ = q.take(batch[:0])
		switch {
		case len(batch) > 0:
		case q.cut == 0:
			return nil
		default:
			return fmt.Errorf("%d %s not sent: %w", q.cut, q.name, q.why)
		}
		if err := q.flush(ctx, batch, min(q.timeout, lastTry)); err != nil {
			lost := q.waiting()
			q.failed.Add(float64(lost))
			return fmt.Errorf("%d %s not sent: %w", q.cut+lost+len(batch), q.name, err)
		}
	}
}

// shutdown sends what is queued and returns when that is done or ctx ends. It is called once.
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
		return fmt.Errorf("%d %s not sent: %w", q.waiting(), q.name, context.Cause(ctx))
	}
}
