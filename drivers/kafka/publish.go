package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const sendAgain = 10 * time.Millisecond

func (b *Broker) producerOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Kafka's own clients
		kgo.ProducerLinger(0),
		// A client of any language can read these without more libraries. With that condition only
		// gzip is left, which costs more than it saves here.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProduceRequestTimeout(callTimeout),
		// A Publish that waits for a dead broker must end. The client then takes a new producer
		// epoch, so that what was cancelled is stored before what follows or not at all.
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

// Publish implements driver.Broker. All messages are produced at once. The first failure cancels
// those behind it. Nothing is held back for later messages to join, and nothing of the call is
// under way after it returned nil.
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
		return fmt.Errorf("kafka: publish: %w", err)
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
			if info, err = b.topic(ctx, msgs[i].Topic, msgs[i].Raw); err != nil {
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

// send produces the records and waits for all of them, or for the end of ctx.
func (b *Broker) send(ctx context.Context, msgs []driver.Message, records []*kgo.Record) error {
	for _, r := range records {
		r.Context = ctx //nolint:fatcontext // until it is stored
	}
	failed, err := b.attempt(ctx, records)
	// The end of another call has failed everything that waits for the same partition. This call's
	// records there are its last ones.
	for err != nil && isContext(err) && steady.Sleep(ctx, sendAgain) {
		failed, err = b.attempt(ctx, records)
	}
	if err == nil {
		return nil
	}
	topic := msgs[failed.index].Topic
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		b.forget(topic) // deleted: the next try makes it again
	}
	err = fmt.Errorf("kafka: publish to %s at %s: %w", topic, b.url, b.lacks("Write", records[failed.index].Topic, "", b.cause(ctx, err)))
	if failed.sent == 0 {
		return err
	}
	return &driver.PartialError{Sent: failed.sent, Err: err}
}

// A failure says where a publication stopped.
type failure struct {
	index int // of the first record that was refused
	sent  int // the first ones of the records that are stored
}

// attempt produces the records that are not stored yet. A stored record has a nil Context: the
// client is done with it, and the mark costs nothing.
func (b *Broker) attempt(ctx context.Context, records []*kgo.Record) (failure, error) {
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &publication{cancel: cancel, finished: make(chan struct{})}
	for _, r := range records {
		if r.Context != nil {
			p.left++
		}
	}
	acked := p.acked
	for _, r := range records {
		if r.Context != nil {
			r.Context = call //nolint:fatcontext // not nested: that of an earlier attempt has ended
			b.cl.Produce(call, r, acked)
		}
	}
	select {
	case <-p.finished:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left > 0 && p.err == nil {
		p.err = context.Cause(ctx)
	}
	if p.err == nil {
		return failure{}, nil
	}
	sent := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Context != nil })
	return failure{index: max(sent, slices.Index(records, p.refused)), sent: sent}, p.err
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// A publication collects the results of one call's records.
type publication struct {
	cancel   context.CancelCauseFunc
	finished chan struct{}

	mu      sync.Mutex
	left    int
	refused *kgo.Record // the first one; nil: none was
	err     error       // why
}

// acked takes the client's result for a record. After a failure the others must not be sent: one of
// the same key would overtake it.
func (p *publication) acked(r *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		r.Context = nil
	} else if p.refused == nil {
		p.refused, p.err = r, err
		p.cancel(err)
	}
	if p.left--; p.left == 0 {
		close(p.finished)
	}
}
