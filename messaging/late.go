package messaging

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// declareTimeout bounds one try to connect to a broker and to declare something there.
const declareTimeout = 10 * time.Second

// A declaration is what a service needs at a broker.
type declaration struct {
	sub   driver.Subscription
	inbox bool // which must remember for longer than the broker does
}

// A late is a broker that was away when the service started. Until all is declared there, nothing is
// consumed from it, and nothing that is in the outbox is published to it: a group from now on is there
// before the events.
type late struct {
	bus  *bus
	br   driver.Broker
	done chan struct{} // closed when all is declared

	mu    sync.Mutex
	waits []declaration
	err   error // of the last try
}

// isAway reports whether a declaration at br has failed because br is away, and not because of what
// was asked for.
func isAway(br driver.Broker, err error) bool {
	if errors.Is(err, driver.ErrInvalid) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, context.Canceled) {
		return false
	}
	return health(br) != nil || errors.Is(err, context.DeadlineExceeded)
}

// health returns why br cannot be reached, nil also if it does not say.
func health(br driver.Broker) error {
	if h, ok := br.(driver.HealthReporter); ok {
		return h.Healthy()
	}
	return nil
}

// later has d declared at br once that is back. err is why it could not be now.
func (b *bus) later(br driver.Broker, d declaration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.late[br]
	if l == nil {
		l = &late{bus: b, br: br, done: make(chan struct{})}
		b.late[br] = l
		b.app.Go("topics and groups of a broker that was away", l.run)
	}
	l.waits, l.err = append(l.waits, d), err // nothing runs yet
}

// lateOf returns what is still to be declared at br, nil if nothing is.
func (b *bus) lateOf(br driver.Broker) *late {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.late[br]
}

// run declares one after the other. What the broker refuses now would have ended the start: it is told
// to the log, and the others go on.
func (l *late) run(stop context.Context) error {
	log := l.bus.app.Logger()
	outage := steady.Outage{What: "declaration of topics and groups", Log: log}
	backoff := steady.Backoff{First: 100 * time.Millisecond, Max: time.Second}
	i := 0
	for i < len(l.waits) && stop.Err() == nil {
		ctx, cancel := context.WithTimeout(stop, declareTimeout)
		err := l.bus.declareAt(ctx, l.br, l.waits[i])
		cancel()
		switch {
		case err != nil && isAway(l.br, err):
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			if health(l.br) == nil { // else the outage of the broker is in the log
				outage.Lost(stop, err)
			}
			steady.Sleep(stop, backoff.Next())
			continue
		case err != nil && stop.Err() == nil:
			log.ErrorContext(stop, "the broker, which was away at the start, refuses what this service needs", "topic", l.waits[i].sub.Topic, "error", err)
		}
		i++
		backoff.Reset()
	}
	if i < len(l.waits) {
		return nil
	}
	outage.Back(stop)
	l.bus.mu.Lock()
	delete(l.bus.late, l.br)
	l.bus.mu.Unlock()
	close(l.done)
	return nil
}

// wait waits until all is declared, and reports false when stop ends before. It may be called on nil.
func (l *late) wait(stop context.Context) bool {
	if l == nil {
		return true
	}
	select {
	case <-l.done:
		return true
	case <-stop.Done():
		return false
	}
}

// reason returns why not all is declared. It may be called on nil.
func (l *late) reason() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
