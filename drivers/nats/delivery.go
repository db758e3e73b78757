package nats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A pending is a delivery that is neither acknowledged nor given back.
type pending struct {
	p     *puller
	reply string
	done  atomic.Bool
	ends  time.Time // guarded by puller.mu
}

func (l *pending) delivery(msg *nats.Msg) driver.Delivery {
	d := driver.Delivery{Message: decode(l.p.sub.Topic, l.p.sub.Raw, msg), Attempt: deliveries(msg.Reply), Acker: l}
	if d.ID == "" { // the publisher gave none: the sequence number is the same at every delivery
		var seq uint64
		if meta, err := msg.Metadata(); err == nil { // an error would mean a reply subject that no server sends
			seq = meta.Sequence.Stream
		}
		d.ID = fmt.Sprintf("%s:%d", l.p.stream, seq)
	}
	return d
}

// deliveries returns how often the message was delivered, including this time. It is part of the
// reply subject: $JS.ACK[.domain.account].stream.consumer.deliveries.… Decoding all of that would
// take several times as long.
func deliveries(reply string) int {
	before := 4
	if strings.Count(reply, ".") > 8 {
		before = 6
	}
	for range before {
		_, reply, _ = strings.Cut(reply, ".")
	}
	count, _, _ := strings.Cut(reply, ".")
	n, err := strconv.Atoi(count)
	if err != nil { // no server sends that
		return 1
	}
	return n
}

// Ack implements driver.Acker.
func (l *pending) Ack(ctx context.Context) error { return l.answer(ctx, "ack", "+ACK") }

// Nack implements driver.Acker.
func (l *pending) Nack(ctx context.Context, after time.Duration) error {
	if after <= 0 {
		return l.answer(ctx, "nack", "-NAK")
	}
	return l.answer(ctx, "nack", fmt.Sprintf(`-NAK {"delay": %d}`, after.Nanoseconds()))
}

// answer sends word and frees the slot. If sending fails the message comes again.
func (l *pending) answer(ctx context.Context, verb, word string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("nats: %s: %w", verb, err)
	}
	if !l.done.CompareAndSwap(false, true) {
		return nil
	}
	err := l.p.b.conn.Publish(l.reply, []byte(word))
	l.p.release(l)
	if err != nil {
		l.done.Store(false)
		return fmt.Errorf("nats: %s to %s: %w", verb, l.p.b.conn.url, l.p.b.cause(ctx, err))
	}
	return nil
}

// Extend implements driver.Acker.
func (l *pending) Extend(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("nats: extend: %w", err)
	}
	if l.done.Load() {
		return nil
	}
	if err := l.p.b.conn.Publish(l.reply, []byte("+WPI")); err != nil {
		return fmt.Errorf("nats: extend at %s: %w", l.p.b.conn.url, l.p.b.cause(ctx, err))
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.ends = time.Now().Add(l.p.b.set.ackWait)
	return nil
}

func (p *puller) release(l *pending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.pending[l]; open {
		delete(p.pending, l)
		p.flight.end()
		if p.emptied != nil && len(p.pending) == 0 {
			close(p.emptied)
			p.emptied = nil
		}
		if p.free() > 0 {
			p.wakeUp()
		}
	}
}
