package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	pullExpires = 30 * time.Second
	heartbeat   = 5 * time.Second  // of a pull, by the server
	silence     = 13 * time.Second // after so long without a message of the server the pulls are sent again
)

// A puller fetches the messages of one consumer. It requests as many messages as it has free slots
// and no more, so that no message waits here while another member is idle. The client library's own
// pull loops fetch ahead, and their ack wait runs while the messages wait.
type puller struct {
	b        *broker
	sub      driver.Subscription
	stream   string
	created  time.Time // the stream
	consumer string
	limit    int           // of messages received and neither acknowledged nor nacked
	flight   *flight       // of the Subscribe call
	may      func() bool   // whether deliveries are allowed now; nil: always
	wake     chan struct{} // holds at most one wake-up of run

	mu        sync.Mutex
	inbox     *nats.Subscription // nil: not subscribed
	queue     []arrival          // received and not delivered
	pending   map[*pending]struct{}
	emptied   chan struct{} // closed when none is pending; nil: nobody waits for that
	requested int           // messages requested and not received
	heard     time.Time     // when the server last sent something
	stale     bool          // the server has forgotten the requests
	refused   bool          // the last pull was refused
	fatal     error
}

// A flight counts the deliveries in flight of one Subscribe call, which may have several pullers.
type flight struct {
	limit int

	mu      sync.Mutex
	n       int
	waiting map[*puller]struct{} // those that had to wait for room
}

// take counts one more, if there is room.
func (f *flight) take(p *puller) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n >= f.limit {
		f.waiting[p] = struct{}{}
		return false
	}
	f.n++
	return true
}

// end counts one less.
func (f *flight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	for p := range f.waiting {
		p.wakeUp()
	}
	clear(f.waiting)
}

func (f *flight) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n >= f.limit
}

type arrival struct {
	msg *nats.Msg
	at  time.Time
}

func (p *puller) run(ctx context.Context, deliver func(driver.Delivery)) error {
	p.b.mu.Lock()
	p.b.pullers[p] = struct{}{}
	p.b.mu.Unlock()
	defer func() {
		p.b.mu.Lock()
		delete(p.b.pullers, p)
		p.b.mu.Unlock()
		p.stop()
	}()
	backoff := steady.Backoff{Max: 2 * time.Second} // after a refused pull
	for ctx.Err() == nil && !p.b.isClosed() {
		if p.may != nil && !p.may() {
			p.pause(ctx, minWait, false)
			continue
		}
		if msg, l := p.next(time.Now()); l != nil {
			backoff.Reset()
			deliver(l.delivery(msg))
			continue
		}
		wait, refused, err := p.request(time.Now())
		if err != nil {
			return err
		}
		if refused {
			if err := p.gone(ctx); err != nil {
				return err
			}
			wait = backoff.Next()
		}
		p.pause(ctx, wait, refused)
	}
	return nil
}

// pause waits for something to do. After a refusal it waits the full time.
func (p *puller) pause(ctx context.Context, wait time.Duration, refused bool) {
	wake := p.wake
	if refused {
		wake = nil
	}
	select {
	case <-wake:
	case <-time.After(wait):
	case <-ctx.Done():
	case <-p.b.done:
	}
}

// next returns the next message that is not too old, counted as in flight; nil if there is none.
func (p *puller) next(now time.Time) (*nats.Msg, *pending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		a := p.queue[0]
		p.queue = p.queue[1:]
		if now.Sub(a.at) >= p.b.set.ackWait {
			continue // the server redelivers it by now
		}
		if !p.flight.take(p) {
			p.queue = slices.Insert(p.queue, 0, a)
			return nil, nil
		}
		l := &pending{p: p, reply: a.msg.Reply, ends: a.at.Add(p.b.set.ackWait)}
		p.pending[l] = struct{}{}
		if p.inbox != nil && !p.stale && !p.refused && p.fatal == nil {
			_ = p.ask(now) // early, so that the server need not wait; request handles a failure
		}
		return a.msg, l
	}
	return nil, nil
}

// request requests as many messages as there are free slots. It returns how long to wait at most,
// whether the last pull was refused, and a final error.
func (p *puller) request(now time.Time) (wait time.Duration, refused bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fatal != nil {
		return 0, false, p.fatal
	}
	if p.refused {
		p.refused, p.stale = false, true
		return 0, true, nil
	}
	if !p.b.conn.IsConnected() {
		return time.Second, false, nil // restart wakes it
	}
	if p.requested > 0 && now.Sub(p.heard) > silence {
		p.stale = true
	}
	if p.stale || p.inbox == nil {
		if err := p.resubscribe(); err != nil {
			return time.Second, false, nil // the connection broke just now
		}
	}
	earliest := p.expire(now)
	if err := p.ask(now); err != nil {
		return minWait, false, nil
	}
	wait = silence
	if !earliest.IsZero() {
		wait = min(wait, max(earliest.Sub(now), time.Millisecond))
	}
	return wait, false, nil
}

// ask requests as many messages as free says. The caller holds p.mu.
func (p *puller) ask(now time.Time) error {
	free := p.free()
	if free == 0 {
		return nil
	}
	if err := p.pull(free); err != nil {
		return err
	}
	p.requested += free
	p.heard = now
	return nil
}

// free returns how many messages to request: 0 while requested ones are outstanding and few slots
// are free. The caller holds p.mu.
func (p *puller) free() int {
	free := p.limit - len(p.pending) - len(p.queue) - p.requested
	if p.requested > 0 && free < p.limit/4 {
		return 0
	}
	return max(free, 0)
}

// expire frees the slots of messages whose ack wait is over, and returns when the next one's will
// be. The caller holds p.mu.
func (p *puller) expire(now time.Time) time.Time {
	var earliest time.Time
	if len(p.pending) < p.limit && p.requested > 0 && !p.flight.full() {
		return earliest // enough slots: no need to look through all
	}
	for l := range p.pending {
		if !l.ends.After(now) {
			delete(p.pending, l)
			p.flight.end()
		} else if earliest.IsZero() || l.ends.Before(earliest) {
			earliest = l.ends
		}
	}
	return earliest
}

// resubscribe begins with a new inbox: the server drops pulls whose inbox has no subscriber. The
// caller holds p.mu.
func (p *puller) resubscribe() error {
	if p.inbox != nil {
		_ = p.inbox.Unsubscribe() // fails only when the connection is closed
	}
	p.inbox, p.requested, p.stale = nil, 0, false
	inbox, err := p.b.conn.Subscribe(p.b.conn.NewInbox(), p.receive)
	if err != nil {
		return err
	}
	if err := inbox.SetPendingLimits(-1, -1); err != nil { // at most p.limit messages come
		return err
	}
	p.inbox = inbox
	return nil
}

func (p *puller) pull(n int) error {
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{n, pullExpires, heartbeat})
	if err != nil {
		return err
	}
	return p.b.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+p.stream+"."+p.consumer, p.inbox.Subject, body)
}

// receive takes messages and the server's statuses of pulls. The client library calls it from one
// goroutine per inbox.
func (p *puller) receive(msg *nats.Msg) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	current := p.inbox != nil && msg.Sub == p.inbox
	if current {
		p.heard = now
	}
	if msg.Reply != "" { // only messages can be answered
		p.queue = append(p.queue, arrival{msg, now})
		if current {
			p.requested = max(p.requested-1, 0)
		}
		if len(p.queue) == 1 { // run looks into the queue until it is empty
			p.wakeUp()
		}
		return
	}
	status := msg.Header.Get("Status")
	if !current || status == "100" { // a heartbeat
		return
	}
	left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
	switch {
	case err == nil: // a pull expired, or the server stops: the rest of it will not come
		p.requested = max(p.requested-left, 0)
	case status == "400":
		p.fatal = fmt.Errorf("the server refuses the pull: %s %s", status, msg.Header.Get("Description"))
	default: // no such consumer, leader changed, deleted…
		p.refused = true
	}
	p.wakeUp()
}

// restart makes run send its pulls again over a new connection.
func (p *puller) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
	p.wakeUp()
}

func (p *puller) wakeUp() { steady.Signal(p.wake) }

// stop ends the subscription and nacks the messages that were not delivered.
func (p *puller) stop() {
	p.mu.Lock()
	inbox := p.inbox
	p.mu.Unlock()
	if inbox != nil && p.b.conn.IsConnected() {
		drained := make(chan struct{})
		inbox.SetClosedHandler(func(string) { close(drained) })
		if inbox.Drain() == nil { // the server may be sending a message at this moment
			select {
			case <-drained:
			case <-time.After(2 * time.Second): // the connection broke: all of them come again after AckWait
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbox = nil
	for _, a := range p.queue {
		_ = p.b.conn.Publish(a.msg.Reply, []byte("-NAK")) // else it comes after AckWait
	}
	p.queue = nil
}
