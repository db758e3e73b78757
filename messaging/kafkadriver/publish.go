package kafkadriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/messaging/driver"
)

const sendAgain = 10 * time.Millisecond

func (b *Broker) producerOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Kafka's own clients
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(callTimeout),
		// A Publish that waits for a dead broker must end. The client then takes a new producer epoch, so that what was cancelled
		// is stored before what follows or not at all.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerBatchMaxBytes(newLimit),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			b.mu.Lock()
			defer b.mu.Unlock()
			if limit, ok := b.limits[topic]; ok {
				return limit
			}
			return usualLimit
		}),
	}
}

// Publish implements driver.Broker. All messages go at once; the first failure cancels those that follow. It is also the flush: nothing
// is held back for others to join it, and when the call returned nil nothing of it is on its way any more.
func (b *Broker) Publish(ctx context.Context, msgs []driver.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := driver.ValidateAll(msgs); err != nil {
		return err
	}
	if err := b.begin(); err != nil {
		return err
	}
	defer b.calls.Done()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("kafkadriver: publish: %w", err)
	}
	if err := b.Healthy(); err != nil {
		return err
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	records, list := make([]kgo.Record, len(msgs)), make([]*kgo.Record, len(msgs))
	e, now := newEncoder(msgs), time.Now()
	var info topicInfo
	for i := range msgs {
		var err error
		if i == 0 || msgs[i].Topic != msgs[i-1].Topic {
			if info, err = b.topic(ctx, msgs[i].Topic); err != nil {
				return err
			}
		}
		list[i] = &records[i]
		if err = e.encode(list[i], &msgs[i], info.name, int(info.limit)); err != nil {
			return err
		}
		list[i].Timestamp = now
	}
	return b.send(ctx, msgs, list)
}

// send produces the records and waits for all, or for the end of ctx.
func (b *Broker) send(ctx context.Context, msgs []driver.Message, records []*kgo.Record) error {
	stored := make([]bool, len(records))
	index, err := b.attempt(ctx, records, stored)
	for err != nil && isContext(err) && ctx.Err() == nil {
		// Another call's end failed all that waits for the same partition; what this call has there is its last ones.
		select {
		case <-time.After(sendAgain):
			index, err = b.attempt(ctx, records, stored)
		case <-ctx.Done():
		}
	}
	if err == nil {
		return nil
	}
	sent := 0
	for sent < len(stored) && stored[sent] {
		sent++
	}
	topic := msgs[index].Topic
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		b.forget(topic) // deleted: the next try makes it again
	}
	err = fmt.Errorf("kafkadriver: publish to %s at %s: %w", topic, b.url, b.lacks("Write", records[index].Topic, "", b.cause(ctx, err)))
	if sent == 0 {
		return err
	}
	return &driver.PartialError{Sent: sent, Err: err}
}

// attempt produces the records that are not stored and says which are then. The error is that of the index.
func (b *Broker) attempt(ctx context.Context, records []*kgo.Record, stored []bool) (index int, err error) {
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &publication{cancel: cancel, stored: slices.Clone(stored), finished: make(chan struct{}), first: -1}
	for _, done := range stored {
		if !done {
			p.left++
		}
	}
	for i, r := range records {
		if !stored[i] {
			r.Context = nil //nolint:fatcontext // that of an earlier attempt has ended
			b.cl.Produce(call, r, func(_ *kgo.Record, err error) { p.settle(i, err) })
		}
	}
	select {
	case <-p.finished:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	copy(stored, p.stored)
	switch {
	case p.first >= 0:
		return p.first, p.err
	case p.left > 0:
		return slices.Index(stored, false), context.Cause(ctx)
	}
	return 0, nil
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// A publication is what became of one call's records.
type publication struct {
	cancel   context.CancelCauseFunc
	finished chan struct{}

	mu     sync.Mutex
	stored []bool
	left   int
	first  int // index of the first failure; -1: none
	err    error
}

// settle takes the client's word on a record. After a failure the others must not go any more: one of the same key would
// overtake it.
func (p *publication) settle(i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.stored[i] = true
	} else if p.first < 0 {
		p.first, p.err = i, err
		p.cancel(err)
	}
	if p.left--; p.left == 0 {
		close(p.finished)
	}
}
