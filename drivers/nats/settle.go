package natsdriver

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

// A lease is a delivery that is not settled.
type lease struct {
	p       *puller
	reply   string
	settled atomic.Bool
	ends    time.Time // guarded by puller.mu
}

func (l *lease) delivery(msg *nats.Msg) driver.Delivery {
	d := driver.Delivery{Message: decode(l.p.sub.Topic, msg), Attempt: deliveries(msg.Reply), Settler: l}
	if d.ID == "" { // the publisher gave none: the place is the same at every delivery
		var seq uint64
		if meta, err := msg.Metadata(); err == nil { // an error would mean a reply subject that no server sends
			seq = meta.Sequence.Stream
		}
		d.ID = fmt.Sprintf("%s:%d", l.p.stream, seq)
	}
	return d
}

// deliveries reads how often the message was delivered, with this time, from where it is to be acknowledged:
// $JS.ACK[.domain.account].stream.consumer.deliveries.… To read all that stands there would take several times as long.
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

// Ack implements driver.Settler.
func (l *lease) Ack(ctx context.Context) error { return l.settle(ctx, "ack", "+ACK") }

// Nack implements driver.Settler.
func (l *lease) Nack(ctx context.Context, after time.Duration) error {
	if after <= 0 {
		return l.settle(ctx, "nack", "-NAK")
	}
	return l.settle(ctx, "nack", fmt.Sprintf(`-NAK {"delay": %d}`, after.Nanoseconds()))
}

// settle sends the word to the server and frees the slot, also when that fails: then the message comes again.
func (l *lease) settle(ctx context.Context, verb, word string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("natsdriver: %s: %w", verb, err)
	}
	if !l.settled.CompareAndSwap(false, true) {
		return nil
	}
	err := l.p.b.nc.Publish(l.reply, []byte(word))
	l.p.release(l)
	if err != nil {
		l.settled.Store(false)
		return fmt.Errorf("natsdriver: %s to %s: %w", verb, l.p.b.url, l.p.b.cause(ctx, err))
	}
	return nil
}

// Extend implements driver.Settler.
func (l *lease) Extend(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("natsdriver: extend: %w", err)
	}
	if l.settled.Load() {
		return nil
	}
	if err := l.p.b.nc.Publish(l.reply, []byte("+WPI")); err != nil {
		return fmt.Errorf("natsdriver: extend at %s: %w", l.p.b.url, l.p.b.cause(ctx, err))
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.ends = time.Now().Add(l.p.b.opts.AckWait)
	return nil
}

func (p *puller) release(l *lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.leases[l]; open {
		delete(p.leases, l)
		if p.free() > 0 {
			p.wakeUp()
		}
	}
}
