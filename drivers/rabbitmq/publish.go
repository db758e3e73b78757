package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	maxChannels = 16  // that publish at the same time
	window      = 500 // messages on a channel whose confirms are awaited together
)

// A channel is an AMQP channel in confirm mode. One publication uses it at a time.
type channel struct {
	ch       *amqp.Channel
	wire     *wire
	closed   chan *amqp.Error
	returned chan amqp.Return
}

// An outgoing is a message on its way to an exchange.
type outgoing struct {
	exchange, key string
	mandatory     bool // it must reach a queue
	msg           amqp.Publishing
}

// topic is the topic of the message: a raw one goes to its queue through the default exchange.
func (o *outgoing) topic() string { return cmp.Or(o.exchange, o.key) }

// Publish implements driver.Broker. The messages go over one channel without waiting for each
// other, which keeps their order. The call returns when the server has confirmed all of them: each
// is then on the disks of most servers of every queue. A topic without a group keeps nothing, and
// publishing to it is no error unless Options.Mandatory is set.
func (b *Broker) Publish(ctx context.Context, msgs []driver.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := driver.ValidateAll(msgs); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("rabbitmq: publish: %w", err)
	}
	if !b.enter() {
		return fmt.Errorf("rabbitmq: publish: %w", driver.ErrClosed)
	}
	defer b.calls.Done()
	conn, err := b.pub.current()
	if err != nil {
		return err
	}
	list := make([]outgoing, len(msgs))
	for i := range msgs {
		if list[i], err = encode(&msgs[i], conn.Config.FrameSize); err != nil {
			return err
		}
	}
	ctx, cancel := steady.Bound(ctx, callTimeout)
	defer cancel()
	c, err := b.acquire(ctx)
	if err != nil {
		return fmt.Errorf("rabbitmq: publish to %s: %w", msgs[0].Topic, err)
	}
	sent, err := b.publish(ctx, c, list)
	b.release(c, err == nil)
	if err == nil {
		return nil
	}
	if sent > 0 {
		return &driver.PartialError{Sent: sent, Err: err}
	}
	return err
}

// publish makes the exchanges and sends the messages. It returns how many of the first messages are
// certainly stored.
func (b *Broker) publish(ctx context.Context, c *channel, list []outgoing) (int, error) {
	for i := range list {
		if i > 0 && list[i].topic() == list[i-1].topic() && list[i].exchange == list[i-1].exchange {
			list[i].mandatory = list[i-1].mandatory
			continue
		}
		raw := list[i].exchange == ""
		if err := b.topic(ctx, c, list[i].topic(), raw); err != nil {
			return 0, err
		}
		list[i].mandatory = raw || b.opts.Mandatory || b.pub.deletedLately(list[i].exchange)
	}
	sent, err := c.send(ctx, list)
	if err == nil {
		return sent, nil
	}
	topic := cmp.Or(b.pub.missing(list, err), list[sent].topic())
	switch {
	case errors.Is(err, ErrNoGroup) && list[sent].exchange == "":
		b.pub.learn("queue "+topic, false)
		err = fmt.Errorf("queue %s: %w", topic, errNoQueue)
	case errors.Is(err, ErrNoGroup) && !b.opts.Mandatory:
		err = fmt.Errorf("its exchange was deleted a moment ago, and none of its groups is back: %w", err)
	}
	return sent, fmt.Errorf("rabbitmq: publish to %s at %s: %w", topic, b.url, lacks("write to it", b.cause(err)))
}

// send sends window by window. It returns how many of the first messages are certainly stored; if
// these are not all, the channel must not be used again.
func (c *channel) send(ctx context.Context, list []outgoing) (int, error) {
	for done := 0; done < len(list); done += window {
		n, err := c.sendWindow(ctx, list[done:min(done+window, len(list))])
		if err != nil {
			return done + n, err
		}
	}
	return len(list), nil
}

// sendWindow does not count a returned message as stored, even if a later one was refused or the
// connection broke: the server also confirms what it returns.
func (c *channel) sendWindow(ctx context.Context, list []outgoing) (int, error) {
	confirms, failure := c.write(ctx, list)
	n, err := c.await(ctx, confirms)
	if back := c.firstReturned(list[:n]); back < n {
		return back, fmt.Errorf("message %q: %w", list[back].msg.MessageId, ErrNoGroup)
	}
	if err == nil && n < len(list) {
		err = failure
	}
	return n, err
}

// await returns how many of the first messages are confirmed.
func (c *channel) await(ctx context.Context, confirms []*amqp.DeferredConfirmation) (int, error) {
	for n, confirm := range confirms {
		select {
		case <-confirm.Done():
			if !confirm.Acked() {
				return n, c.refusal()
			}
		case <-ctx.Done():
			return n, fmt.Errorf("no confirm: %w", context.Cause(ctx))
		}
	}
	return len(confirms), nil
}

// firstReturned returns the index of the first of the confirmed messages that was returned, or
// their number. The server confirms a message after it has returned it.
func (c *channel) firstReturned(list []outgoing) int {
	first := len(list)
	for {
		select {
		case back, ok := <-c.returned:
			if !ok { // the channel was closed just now
				return first
			}
			same := func(o outgoing) bool { return o.msg.MessageId == back.MessageId && o.exchange == back.Exchange }
			if i := slices.IndexFunc(list[:first], same); i >= 0 {
				first = i
			}
		default:
			return first
		}
	}
}

// write sends messages until one fails.
func (c *channel) write(ctx context.Context, list []outgoing) (confirms []*amqp.DeferredConfirmation, err error) {
	if len(list) > 1 {
		c.wire.hold()
		defer func() {
			if failure := c.wire.release(); err == nil {
				err = failure
			}
		}()
	}
	confirms = make([]*amqp.DeferredConfirmation, 0, len(list))
	for i := range list {
		out := &list[i]
		confirm, err := c.ch.PublishWithDeferredConfirmWithContext(ctx, out.exchange, out.key, out.mandatory, false, out.msg)
		if err != nil {
			return confirms, err
		}
		confirms = append(confirms, confirm)
	}
	return confirms, nil
}

// refusal says why a message was not confirmed: the channel broke, or else the server refused it.
func (c *channel) refusal() error {
	select {
	case err := <-c.closed:
		if err != nil {
			return err
		}
		return errLost
	default:
		return errRefuse
	}
}

// acquire returns a channel for publishing, once fewer than maxChannels are in use.
func (b *Broker) acquire(ctx context.Context) (*channel, error) {
	if err := b.pub.taking(); err != nil {
		return nil, err
	}
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c := b.pub.take(); c != nil {
		return c, nil
	}
	var c *channel
	conn, err := b.pub.current()
	if err == nil {
		err = b.await(ctx, func() (err error) {
			opened, err := openChannel(conn)
			if err == nil && ctx.Err() != nil { // nobody waits any more
				_ = opened.ch.Close()
			} else if err == nil {
				c = opened
			}
			return err
		})
	}
	if err != nil {
		<-b.turns
		return nil, b.cause(err)
	}
	return c, nil
}

func openChannel(conn *connection) (*channel, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, err
	}
	return &channel{
		ch:       ch,
		wire:     conn.wire,
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		returned: ch.NotifyReturn(make(chan amqp.Return, window)),
	}, nil
}

// take returns a free channel, nil if there is none.
func (l *link) take() *channel {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, c := range slices.Backward(l.free) {
		l.free = l.free[:n]
		if !c.ch.IsClosed() {
			return c
		}
	}
	return nil
}

// release gives a channel back. One that failed is closed: confirms may still come.
func (b *Broker) release(c *channel, good bool) {
	defer func() { <-b.turns }()
	if !good {
		b.work.Go(func() { _ = c.ch.Close() })
		return
	}
	b.pub.mu.Lock()
	defer b.pub.mu.Unlock()
	b.pub.free = append(b.pub.free, c)
}
