package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// A bus is what the publishers and subscriptions of one service share.
type bus struct {
	app     *kaptar.App
	metrics *metrics

	mu         sync.Mutex
	brokers    map[string]driver.Broker // by URL
	late       map[driver.Broker]*late  // those that were away at the start
	routes     map[string]driver.Broker // by topic
	subscribed map[[2]string]*consumer  // by topic and group
	publishes  map[string]check         // by topic
	stored     *store                   // nil without transactional use
	share      *share                   // nil before the first subscription
	middleware []func(Handler) Handler
	asking     chan struct{} // has one value while somebody asks for all topics
	flows      *flowPage     // the last answer, got at asked; needs asking
	asked      time.Time
}

type busKey struct{}

// busOf returns app's bus, made at the first call.
func busOf(app *kaptar.App) (*bus, error) {
	return kaptar.Attach(app, busKey{}, func() (*bus, error) {
		b := &bus{
			app: app, brokers: make(map[string]driver.Broker), routes: make(map[string]driver.Broker), subscribed: make(map[[2]string]*consumer),
			publishes: make(map[string]check), late: make(map[driver.Broker]*late), asking: make(chan struct{}, 1),
		}
		b.metrics = newMetrics(app)
		return b, nil
	})
}

// A store is the part of a bus that lives in the service's database: outbox, inbox, dead letters.
type store struct {
	db    *sql.DB
	relay *outbox.Relay
}

type storeKey struct{}

// store returns the bus's store. The first transactional use creates the tables, starts the relay
// and schedules the purging of the inbox.
func (b *bus) store() (*store, error) {
	return kaptar.Attach(b.app, storeKey{}, func() (*store, error) {
		db, err := b.app.DB(nil)
		if err != nil {
			return nil, fmt.Errorf("messaging: outbox and inbox: %w", err)
		}
		if err := outbox.Migrate(b.app.Context(), db); err != nil {
			return nil, fmt.Errorf("messaging: %s: %w", b.app.Name(), err)
		}
		set := kaptar.SectionOf[Settings](b.app)
		if set.Inbox.Retention < 0 {
			return nil, fmt.Errorf("messaging: %s: inbox.retention is %v: expected a duration, or 0s for ever", b.app.Name(), set.Inbox.Retention)
		}
		s := &store{db, outbox.NewRelay(db, b.send, &outbox.RelayOptions{Log: b.app.Logger(), Keep: set.Outbox.Keep, Apart: set.apart()})}
		s.observe(b)
		b.mu.Lock()
		b.stored = s
		b.mu.Unlock()
		b.app.Go("outbox relay", s.relay.Run)
		if set.Inbox.Retention == 0 {
			return s, nil
		}
		every := max(time.Second, min(time.Hour, set.Inbox.Retention/8))
		err = b.app.Every("inbox purge", every, func(ctx context.Context, _ kaptar.Due) error {
			_, err := outbox.PurgeInbox(ctx, db, set.Inbox.Retention)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("messaging: inbox: %w", err)
		}
		return s, nil
	})
}

// broker returns the broker of a topic. The settings are read at the first call for a topic.
func (b *bus) broker(ctx context.Context, topic string) (driver.Broker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if br, ok := b.routes[topic]; ok {
		return br, nil
	}
	br, err := b.open(ctx, topic)
	if err == nil {
		b.routes[topic] = br
	}
	return br, err
}

// open returns the broker behind topic's URL and connects to each URL once. It needs b.mu.
func (b *bus) open(ctx context.Context, topic string) (driver.Broker, error) {
	set := kaptar.SectionOf[Settings](b.app)
	url, key := set.BrokerURL.Reveal(), "broker_url"
	if t, ok := set.Topics[topic]; ok && t.URL != "" {
		url, key = t.URL.Reveal(), "topics."+topic+".url"
	} else if like := near.Typo(topic, slices.Sorted(maps.Keys(set.Topics))); !ok && like != "" {
		b.app.Logger().WarnContext(ctx, "a topic has no settings, but one with nearly its name has", "topic", topic, "setting", "topics."+like)
	}
	if url == "" {
		return nil, fmt.Errorf("messaging: %s has no broker for %s: set BROKER_URL, for example to nats://localhost:4222", b.app.Name(), topic)
	}
	if br, ok := b.brokers[url]; ok {
		return br, nil
	}
	backend, err := b.app.Backend(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("messaging: %s: %w", key, err)
	}
	carrier, ok := backend.(interface{ Broker() (driver.Broker, error) })
	if !ok {
		return nil, fmt.Errorf("messaging: %s: %s carries no events: expected nats://, kafka:// or amqp://", key, redact.URL(url))
	}
	br, err := carrier.Broker()
	if err != nil {
		return nil, fmt.Errorf("messaging: %s: %w", key, err)
	}
	b.brokers[url] = br
	// A lost broker does not make the service unready: it goes on answering, and what it publishes
	// waits in the outbox. The metric shows the outage.
	if h, ok := br.(driver.HealthReporter); ok {
		b.app.Metrics().MustRegister(brokerUp(b.app.Name(), key, h))
	}
	return br, nil
}

// declare opens the broker of sub's topic and makes sure that the topic and, if sub has one, the
// group exist, or have them declared once the broker is there. If app is offline it does nothing and
// returns nil.
func (b *bus) declare(d declaration) (driver.Broker, error) {
	if b.app.Offline() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(b.app.Context(), declareTimeout)
	defer cancel()
	br, err := b.broker(ctx, d.sub.Topic)
	if err != nil {
		return nil, err
	}
	if err = b.declareAt(ctx, br, d); err != nil && isAway(br, err) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.late[br] == nil {
			b.late[br] = &late{outage: steady.Outage{What: "declaration of topics and groups", Log: b.app.Logger()}}
		}
		b.late[br].waits = append(b.late[br].waits, d)
		return br, nil
	}
	return br, err
}

func (b *bus) declareAt(ctx context.Context, br driver.Broker, d declaration) error {
	if err := br.Declare(ctx, d.sub); err != nil {
		return fmt.Errorf("messaging: %s: declare %s: %w", b.app.Name(), d.sub.Topic, err)
	}
	if d.inbox {
		return b.remembers(ctx, br, d.sub.Topic)
	}
	return nil
}

// send gives msgs, which have one broker, to it.
func (b *bus) send(ctx context.Context, msgs []driver.Message) error {
	br, err := b.broker(ctx, msgs[0].Topic)
	if err == nil {
		err = b.declareLate(ctx, br)
	}
	if err != nil {
		return err
	}
	return b.publish(ctx, br, msgs)
}

// publish publishes msgs to br. A message that br will never accept, such as one above the server's
// own limit, becomes a dead letter: in the outbox it would hold up all that follow.
func (b *bus) publish(ctx context.Context, br driver.Broker, msgs []driver.Message) error {
	err := br.Publish(ctx, msgs)
	if !refused(err) {
		return err
	}
	for i := range msgs { // nothing of the batch was stored
		err := br.Publish(ctx, msgs[i:i+1])
		if refused(err) {
			err = b.addDeadLetter(ctx, msgs[i], err)
		}
		if err != nil {
			return &driver.PartialError{Sent: i, Err: err}
		}
	}
	return nil
}

func refused(err error) bool {
	return errors.Is(err, driver.ErrTooLarge) || errors.Is(err, driver.ErrInvalid)
}

func (b *bus) addDeadLetter(ctx context.Context, m driver.Message, reason error) error {
	b.app.Logger().ErrorContext(ctx, "event refused by the broker is a dead letter", "topic", m.Topic, "id", m.ID, "error", reason)
	return sqldb.InTx(ctx, b.stored.db, func(ctx context.Context, tx *sql.Tx) error {
		return outbox.AddDeadLetter(ctx, tx, outbox.DeadLetter{Kind: outbox.Publish, Group: b.app.Name(), Message: m, Reason: reason.Error()})
	})
}

// remembers returns an error if br keeps the events of a topic for longer than the inbox remembers
// them. A group that loses its position would then handle old events again. A broker that keeps
// events for ever is not refused: no inbox could remember that, and brokers that keep an event
// until it is acknowledged answer the same.
func (b *bus) remembers(ctx context.Context, br driver.Broker, topic string) error {
	retainer, ok := br.(driver.Retainer)
	inbox := kaptar.SectionOf[Settings](b.app).Inbox.Retention
	if !ok || inbox == 0 {
		return nil
	}
	broker, err := retainer.Retention(ctx, topic)
	if err != nil { // for example without the permission to ask
		b.app.Logger().WarnContext(ctx, "the broker does not tell how long it keeps events: inbox.retention must not be shorter",
			"topic", topic, "inbox.retention", inbox.String(), "error", err)
		return nil
	}
	if broker > inbox {
		return fmt.Errorf("messaging: %s: the broker keeps events of %s for %v and the inbox remembers them for %v, so one that comes again "+
			"could be handled twice: set inbox.retention to %v or more, 0s being for ever, or let the broker keep them for less",
			b.app.Name(), topic, broker, inbox, broker)
	}
	return nil
}
