package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	maxPipelined   = 256 // messages of one call that await their acknowledgements
	maxFreeInboxes = 64  // at rest

	// Nobody answers for a stream while its leader changes.
	nobodyTries = 3
	nobodyPause = 250 * time.Millisecond
)

// errSilence is in the error chain when the server takes too long. In a cluster that happens on an
// intact connection: what was under way to another server that died is lost.
var errSilence = fmt.Errorf("the server is silent: %w", context.DeadlineExceeded)

// single publishes each message on its own. It retries those that nobody answers, like the library.
func (p *publication) single(ctx context.Context, indexes []int) error {
	for try := 1; ; try++ {
		err := p.pipelined(ctx, indexes)
		if try == nobodyTries || !errors.Is(err, jetstream.ErrNoStreamResponse) {
			return err
		}
		if !steady.Sleep(ctx, nobodyPause) || p.link.Err() != nil {
			return err
		}
		indexes = slices.DeleteFunc(slices.Clone(indexes), func(i int) bool { return p.stored[i] })
	}
}

// pipelined sends messages and awaits their acknowledgements. Many are under way together, but only
// one of each key: otherwise the second could overtake the first if that failed. After a failure
// nothing more is sent.
func (p *publication) pipelined(ctx context.Context, indexes []int) (failure error) {
	inbox, err := p.b.takeInbox()
	if err != nil {
		return err
	}
	awaited := 0
	defer func() { p.b.putInbox(inbox, awaited == 0) }()
	timeout := p.b.ackTimeout
	if !p.ends.IsZero() {
		timeout = time.Until(p.ends)
	}
	inbox.timer.Reset(timeout)
	defer inbox.timer.Stop()
	progress := false
	ready, next := p.chains(indexes)
	for {
		for failure == nil && len(ready) > 0 && awaited < maxPipelined {
			if failure = inbox.send(p.b.conn.Conn, &p.wire[ready[0]], ready[0]); failure == nil {
				awaited++
				ready = ready[1:]
			}
		}
		if awaited == 0 {
			return failure
		}
		msg, err := inbox.receive(ctx, p.link)
		if errors.Is(err, errSilence) && progress && p.ends.IsZero() {
			progress = false
			inbox.timer.Reset(timeout)
			continue
		}
		if v, ok := errors.AsType[*violation](err); ok && !p.concerns(v.subject) {
			continue // it belongs to another call
		}
		if err != nil {
			return fmt.Errorf("no acknowledgement: %w", err)
		}
		i, ok := inbox.index(msg)
		if !ok || i < 0 || i >= len(p.msgs) || p.stored[i] {
			continue // a second answer
		}
		awaited--
		progress = true
		if err := acknowledged(msg); err != nil {
			if failure == nil {
				failure = err
			}
			continue
		}
		p.stored[i] = true
		if next[i] > 0 {
			ready = append(ready, next[i])
		}
	}
}

// chains returns the first message of each key and, for each message, the next of its key or 0.
func (p *publication) chains(indexes []int) (first, next []int) {
	next = make([]int, len(p.msgs))
	if len(indexes) == 1 {
		return indexes, next
	}
	first = make([]int, 0, len(indexes))
	last := make(map[string]int, len(indexes))
	for _, i := range indexes {
		key := p.msgs[i].Key
		if before, ok := last[key]; ok {
			next[before] = i
		} else {
			first = append(first, i)
		}
		last[key] = i
	}
	return first, next
}

// acknowledged returns nil if the server has stored the message that it answers to.
func acknowledged(msg *nats.Msg) error {
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		return jetstream.ErrNoStreamResponse
	}
	if stored(msg.Data) {
		return nil
	}
	_, err := parseAck(msg.Data)
	return err
}

// parseAck reads the server's answer to a message, or to a batch of count messages.
func parseAck(answer []byte) (count int, err error) {
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
		Count  int                 `json:"count"`
	}
	switch err := json.Unmarshal(answer, &ack); {
	case err != nil:
		return 0, fmt.Errorf("answer %q: %w", answer, err)
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream == "":
		return 0, fmt.Errorf("answer %q: %w", answer, jetstream.ErrInvalidJSAck)
	}
	return ack.Count, nil
}

// stored recognises the usual answer, since decoding it takes as long as encoding the message.
// False means that it must be decoded.
func stored(answer []byte) bool {
	name, ok := bytes.CutPrefix(answer, []byte(`{"stream":"`))
	return ok && len(name) > 0 && name[0] != '"' && !bytes.Contains(name, []byte(`"error"`))
}

// A replyInbox receives the server's answers to one call of Publish directly from the goroutine
// that reads the connection. The client library's own publishing adds a goroutine, two channels and
// a timer for each message. Calls use an inbox one after the other.
type replyInbox struct {
	sub    *nats.Subscription
	acks   chan *nats.Msg
	prefix string // of the inbox's subjects
	calls  uint64
	call   string // prefix of the subjects of this call: an answer to an earlier one must not count
	timer  *time.Timer
	denied chan *violation
}

func (b *broker) takeInbox() (*replyInbox, error) {
	b.mu.Lock()
	var inbox *replyInbox
	if n := len(b.free); n > 0 {
		inbox, b.free = b.free[n-1], b.free[:n-1]
	}
	b.mu.Unlock()
	if inbox == nil {
		inbox = &replyInbox{
			acks: make(chan *nats.Msg, maxPipelined), denied: make(chan *violation, 16),
			prefix: b.conn.NewInbox() + ".", timer: time.NewTimer(callTimeout),
		}
		inbox.timer.Stop()
		var err error
		if inbox.sub, err = b.conn.ChanSubscribe(inbox.prefix+"*", inbox.acks); err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.inboxes[inbox] = struct{}{}
		b.mu.Unlock()
	}
	for len(inbox.denied) > 0 {
		<-inbox.denied //nolint:errcheck // of an earlier call
	}
	inbox.calls++
	inbox.call = inbox.prefix + strconv.FormatUint(inbox.calls, 36) + "-"
	return inbox, nil
}

// putInbox keeps the inbox for another call, unless outstanding answers could fill it.
func (b *broker) putInbox(inbox *replyInbox, empty bool) {
	b.mu.Lock()
	keep := empty && len(b.free) < maxFreeInboxes
	if keep {
		b.free = append(b.free, inbox)
	} else {
		delete(b.inboxes, inbox)
	}
	b.mu.Unlock()
	if !keep {
		_ = inbox.sub.Unsubscribe() // fails only when the connection is closed
	}
}

func (x *replyInbox) send(nc *nats.Conn, msg *nats.Msg, index int) error {
	msg.Reply = x.call + strconv.Itoa(index)
	return nc.PublishMsg(msg)
}

func (x *replyInbox) receive(ctx, link context.Context) (*nats.Msg, error) {
	select {
	case msg := <-x.acks: // the usual case, and cheaper than the full select
		return msg, nil
	default:
	}
	select {
	case msg := <-x.acks:
		return msg, nil
	case v := <-x.denied:
		return nil, v
	case <-x.timer.C:
		return nil, errSilence
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-link.Done():
		return nil, context.Cause(link)
	}
}

// index returns which message of this call an answer is for.
func (x *replyInbox) index(msg *nats.Msg) (int, bool) {
	text, ok := strings.CutPrefix(msg.Subject, x.call)
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(text)
	return i, err == nil
}
