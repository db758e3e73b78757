package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	atomicMin   = 32      // below this an atomic batch may be slower than single messages, even with an fsync for each
	atomicMax   = 500     // the server takes 1000
	atomicBytes = 8 << 20 // of one batch, since the server stages it

	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
)

const errCodeAtomicDisabled jetstream.ErrorCode = 10174

// Publish implements driver.Broker. With atomic=true, 32 and more messages of a topic go as atomic
// batches of up to 500. Otherwise, or if the server refuses a batch because it has one of the ids,
// each message goes on its own. Those of different keys go together. The next message of a key
// waits for the acknowledgement of the one before, so that a failure cannot change their order.
func (b *broker) Publish(ctx context.Context, msgs []driver.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := driver.ValidateAll(msgs); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("nats: publish: %w", err)
	}
	if err := b.reachable(); err != nil {
		return err
	}
	p := &publication{b: b, msgs: msgs, wire: make([]nats.Msg, len(msgs)), stored: make([]bool, len(msgs)), link: b.conn.currentLink()}
	if _, ok := ctx.Deadline(); !ok {
		p.ends = time.Now().Add(callTimeout)
	}
	limit := b.conn.MaxPayload()
	for i := range msgs {
		if err := encode(&p.wire[i], &msgs[i], limit); err != nil {
			return err
		}
	}
	for _, indexes := range byTopic(msgs) {
		topic := msgs[indexes[0]].Topic
		if err := p.send(ctx, topic, indexes); err != nil {
			err = p.failed(ctx, topic, err)
			if !errors.Is(ctx.Err(), context.Canceled) && b.reachable() == nil {
				b.working.Note(topic, err)
			}
			return err
		}
		b.working.Note(topic, nil)
	}
	return nil
}

// byTopic returns the indexes of each topic's messages.
func byTopic(msgs []driver.Message) [][]int {
	var lists [][]int
	index := make(map[string]int)
	for i := range msgs {
		at, ok := index[msgs[i].Topic]
		if !ok {
			at = len(lists)
			index[msgs[i].Topic] = at
			lists = append(lists, nil)
			if i == 0 {
				lists[0] = make([]int, 0, len(msgs)) // most batches have one topic
			}
		}
		lists[at] = append(lists[at], i)
	}
	return lists
}

// A publication is one call of Publish.
type publication struct {
	b      *broker
	msgs   []driver.Message
	wire   []nats.Msg
	stored []bool
	link   context.Context // ends when the connection that carries the messages is lost
	ends   time.Time       // the deadline if the caller has none, else zero
}

// bound returns ctx for blocking calls of the client library.
func (p *publication) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.ends.IsZero() {
		return p.b.conn.bound(ctx)
	}
	ctx, stopTimer := context.WithDeadline(ctx, p.ends)
	ctx, stop := p.b.conn.bound(ctx)
	return ctx, func() {
		stop()
		stopTimer()
	}
}

func (p *publication) failed(ctx context.Context, topic string, err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		p.b.forget(topic) // the stream may be gone: the next try makes it again
	}
	err = fmt.Errorf("nats: publish to %s at %s: %w", topic, p.b.conn.url, p.b.cause(ctx, err))
	if sent := slices.Index(p.stored, false); sent > 0 {
		return &driver.PartialError{Sent: sent, Err: err}
	}
	return err
}

// send publishes the messages with the given indexes, all of one topic.
func (p *publication) send(ctx context.Context, topic string, indexes []int) error {
	info, ok := p.b.known(topic)
	if !ok {
		bounded, cancel := p.bound(ctx)
		var err error
		info, err = p.b.topic(bounded, topic, p.msgs[indexes[0]].Raw)
		cancel()
		if err != nil {
			return err
		}
	}
	if !info.atomic || len(indexes) < p.b.atomicMin {
		return p.single(ctx, indexes)
	}
	for len(indexes) > 0 {
		n := p.chunk(indexes)
		if n < p.b.atomicMin { // the rest, or very large messages
			if err := p.single(ctx, indexes[:n]); err != nil {
				return err
			}
			indexes = indexes[n:]
			continue
		}
		err := p.atomic(ctx, indexes[:n])
		if refusal, ok := errors.AsType[*jetstream.APIError](err); ok {
			// Nothing of the batch is stored. Most likely the server has one of the ids; otherwise
			// single messages show the cause.
			if refusal.ErrorCode == errCodeAtomicDisabled {
				p.b.forget(topic)
			}
			err = p.single(ctx, indexes[:n])
		}
		if err != nil {
			return err
		}
		indexes = indexes[n:]
	}
	return nil
}

// chunk returns how many messages make the next batch.
func (p *publication) chunk(indexes []int) int {
	n, bytes := 0, 0
	for n < len(indexes) && n < atomicMax {
		bytes += p.msgs[indexes[n]].Size()
		if n > 0 && bytes > atomicBytes {
			break
		}
		n++
	}
	return n
}

// atomic publishes all messages or none. The error is an *APIError if the server refused them;
// after any other error they may be stored or not.
func (p *publication) atomic(ctx context.Context, indexes []int) error {
	id := nats.NewInbox()[len(nats.InboxPrefix):] // as unique as the reply subjects are
	for seq, i := range indexes {
		h := p.wire[i].Header
		h[headerBatchID] = []string{id}
		h[headerBatchSeq] = []string{strconv.Itoa(seq + 1)}
		defer func() {
			delete(h, headerBatchID)
			delete(h, headerBatchSeq)
			delete(h, headerBatchCommit)
		}()
	}
	last := len(indexes) - 1
	for _, i := range indexes[:last] {
		if err := p.b.conn.PublishMsg(&p.wire[i]); err != nil {
			return err
		}
	}
	commit := &p.wire[indexes[last]]
	commit.Header[headerBatchCommit] = []string{"1"}
	bounded, cancel := p.bound(ctx)
	defer cancel()
	bounded, done := p.b.ask(bounded, p.concerns)
	defer done()
	reply, err := p.b.conn.RequestMsgWithContext(bounded, commit)
	if err != nil {
		return p.b.cause(bounded, err)
	}
	count, err := parseAck(reply.Data)
	if err != nil {
		return err
	}
	if count != len(indexes) {
		return fmt.Errorf("answer %q to an atomic batch of %d messages: expected that count", reply.Data, len(indexes))
	}
	for _, i := range indexes {
		p.stored[i] = true
	}
	return nil
}
