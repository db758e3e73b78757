package natsdriver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats/internal/conn"
)

const (
	flightMax = 256 // messages of one call that wait for their acknowledgement at a time
	boxesMax  = 64  // at rest

	// Nobody answers for a stream while its leader changes.
	nobodyTries = 3
	nobodyPause = 250 * time.Millisecond
)

// errSilence is in the chain of the error when the server takes too long. In a cluster that happens with the connection intact: what
// was on its way to another server that died is lost.
var errSilence = fmt.Errorf("the server is silent: %w", context.DeadlineExceeded)

// single publishes each message on its own. It tries again those that nobody answers for, as the client library does.
func (p *publication) single(ctx context.Context, indexes []int) error {
	for try := 1; ; try++ {
		err := p.fly(ctx, indexes)
		if try == nobodyTries || !errors.Is(err, jetstream.ErrNoStreamResponse) {
			return err
		}
		select {
		case <-time.After(nobodyPause):
		case <-ctx.Done():
			return err
		case <-p.link.Done():
			return context.Cause(p.link)
		}
		var rest []int
		for _, i := range indexes {
			if !p.stored[i] {
				rest = append(rest, i)
			}
		}
		indexes = rest
	}
}

// fly sends messages and awaits their acknowledgements. Many are on their way together, but of each key only one: were there
// two and the first of them failed, the second would overtake it. After a failure nothing more is sent.
func (p *publication) fly(ctx context.Context, indexes []int) (failure error) {
	box, err := p.b.takeBox()
	if err != nil {
		return err
	}
	flying := 0
	defer func() { p.b.putBox(box, flying == 0) }()
	patience := p.b.patience
	if !p.ends.IsZero() {
		patience = time.Until(p.ends)
	}
	box.timer.Reset(patience)
	defer box.timer.Stop()
	progress := false
	ready, next := p.chains(indexes)
	for {
		for failure == nil && len(ready) > 0 && flying < flightMax {
			if failure = box.send(p.b.nc, &p.wire[ready[0]], ready[0]); failure == nil {
				flying++
				ready = ready[1:]
			}
		}
		if flying == 0 {
			return failure
		}
		msg, err := box.receive(ctx, p.link)
		if errors.Is(err, errSilence) && progress && p.ends.IsZero() {
			progress = false
			box.timer.Reset(patience)
			continue
		}
		if v, ok := errors.AsType[*violation](err); ok && !p.concerns(v.subject) {
			continue // another call's
		}
		if err != nil {
			return fmt.Errorf("no acknowledgement: %w", err)
		}
		i, ok := box.index(msg)
		if !ok || i < 0 || i >= len(p.msgs) || p.stored[i] {
			continue // somebody else answers too
		}
		flying--
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
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	switch err := json.Unmarshal(msg.Data, &ack); {
	case err != nil:
		return fmt.Errorf("answer %q: %w", msg.Data, err)
	case ack.Error != nil:
		return ack.Error
	case ack.Stream == "":
		return fmt.Errorf("answer %q: %w", msg.Data, jetstream.ErrInvalidJSAck)
	}
	return nil
}

// stored recognises the answer that nearly always comes: to decode it would take as long as to encode the message. What it does not
// recognise may say the same in another form.
func stored(answer []byte) bool {
	name, ok := bytes.CutPrefix(answer, []byte(`{"stream":"`))
	return ok && len(name) > 0 && name[0] != '"' && !bytes.Contains(name, []byte(`"error"`))
}

// An ackBox is where the server's answers to one call of Publish come: straight from the goroutine that reads the connection,
// where the client library's own publishing has a goroutine more, two channels and a timer for each message. Calls use it one
// after the other.
type ackBox struct {
	sub    *nats.Subscription
	acks   chan *nats.Msg
	prefix string // of the subjects that come here
	calls  uint64
	call   string // prefix of the subjects of this call: an answer to an earlier one must not count
	timer  *time.Timer
	denied chan *violation
}

func (b *Broker) takeBox() (*ackBox, error) {
	b.mu.Lock()
	var box *ackBox
	if n := len(b.boxes); n > 0 {
		box, b.boxes = b.boxes[n-1], b.boxes[:n-1]
	}
	b.mu.Unlock()
	if box == nil {
		box = &ackBox{
			acks: make(chan *nats.Msg, flightMax), denied: make(chan *violation, 16),
			prefix: b.nc.NewInbox() + ".", timer: time.NewTimer(natsconn.CallTimeout),
		}
		box.timer.Stop()
		var err error
		if box.sub, err = b.nc.ChanSubscribe(box.prefix+"*", box.acks); err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.out[box] = struct{}{}
		b.mu.Unlock()
	}
	for len(box.denied) > 0 {
		<-box.denied //nolint:errcheck // of an earlier call
	}
	box.calls++
	box.call = box.prefix + strconv.FormatUint(box.calls, 36) + "-"
	return box, nil
}

// putBox keeps the box for another call, unless answers may still come for which it would have no room then.
func (b *Broker) putBox(box *ackBox, empty bool) {
	b.mu.Lock()
	keep := empty && len(b.boxes) < boxesMax
	if keep {
		b.boxes = append(b.boxes, box)
	} else {
		delete(b.out, box)
	}
	b.mu.Unlock()
	if !keep {
		_ = box.sub.Unsubscribe() // fails only when the connection is closed
	}
}

func (x *ackBox) send(nc *nats.Conn, msg *nats.Msg, index int) error {
	msg.Reply = x.call + strconv.Itoa(index)
	return nc.PublishMsg(msg)
}

func (x *ackBox) receive(ctx, link context.Context) (*nats.Msg, error) {
	select {
	case msg := <-x.acks: // the rule, and cheaper than to look at all
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
func (x *ackBox) index(msg *nats.Msg) (int, bool) {
	text, ok := strings.CutPrefix(msg.Subject, x.call)
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(text)
	return i, err == nil
}
