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

// A late is what is still to be declared at a broker that was away when the service started. Whoever
// consumes from it, or sends to it from the outbox, declares all of it before, so that a group from
// now on is there before the events.
type late struct {
	outage steady.Outage

	mu    sync.Mutex
	waits []declaration
}

// isAway reports whether a declaration at br has failed because br is away.
func isAway(br driver.Broker, err error) bool {
	asked := errors.Is(err, driver.ErrInvalid) || errors.Is(err, errors.ErrUnsupported)
	return !asked && (health(br) != nil || errors.Is(err, context.DeadlineExceeded))
}

// health returns why br cannot be reached, nil also if it does not say.
func health(br driver.Broker) error {
	if h, ok := br.(driver.HealthReporter); ok {
		return h.Healthy()
	}
	return nil
}

// declareLate declares what could not be declared at the start. What the broker refuses, which would
// have ended the start, is told to the log.
func (b *bus) declareLate(ctx context.Context, br driver.Broker) error {
	b.mu.Lock()
	l := b.late[br]
	b.mu.Unlock()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waits) > 0 {
		once, cancel := context.WithTimeout(ctx, declareTimeout)
		err := b.declareAt(once, br, l.waits[0])
		cancel()
		if err != nil && (ctx.Err() != nil || isAway(br, err)) {
			if health(br) == nil { // else the outage of the broker is in the log
				l.outage.Lost(ctx, err)
			}
			return err
		}
		if err != nil {
			b.app.Logger().ErrorContext(ctx, "the broker, which was away at the start, refuses what this service needs", "error", err)
		}
		l.waits = l.waits[1:]
	}
	l.outage.Back(ctx)
	return nil
}
