package main

import (
	"context"
	stdsql "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	_ "github.com/jackc/pgx/v5/stdlib"
	gonats "github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/bench/internal/events"
)

const (
	batch       = 500 // rows that the forwarder reads at once; the default is 100
	outboxTopic = "outbox"
	group       = "mail"
	handlers    = 16 // at the same time, as kaptar's
)

// A rival is Watermill as its documentation has it: the SQL publisher in the caller's transaction, the
// forwarder from its SQL subscriber to JetStream, and a router on the JetStream subscriber whose
// handler has a transaction of its own.
type rival struct {
	queue bool          // the queue schema instead of that of consumer groups
	dedup bool          // the Deduplicator around the handler
	poll  time.Duration // 0: the default, 1 s

	faults *events.Faults
}

type running struct {
	rival

	env       *events.Env
	publisher *stdsql.DB
	handle    *stdsql.DB
	routers   []*message.Router
	closers   []func() error
}

func (r rival) open(ctx context.Context, env *events.Env) (_ events.Running, err error) {
	w := &running{rival: r, env: env}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if w.publisher, err = w.database(ctx, env.Publisher); err != nil {
		return nil, err
	}
	if w.handle, err = w.database(ctx, env.Handle); err != nil {
		return nil, err
	}
	if err := w.stream(); err != nil {
		return nil, err
	}
	subscriber, err := nats.NewSubscriber(nats.SubscriberConfig{
		URL: env.Broker, QueueGroupPrefix: group, SubscribersCount: handlers, Unmarshaler: &nats.NATSMarshaler{},
		JetStream: nats.JetStreamConfig{
			AckAsync: true, DurablePrefix: group,
			SubscribeOptions: []gonats.SubOpt{gonats.DeliverAll(), gonats.AckExplicit(), gonats.ManualAck()},
		},
	}, nil)
	if err != nil {
		return nil, err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	h := router.AddConsumerHandler("mail", env.Topic, subscriber, w.mail)
	if r.dedup {
		h.AddMiddleware((&middleware.Deduplicator{KeyFactory: func(m *message.Message) (string, error) { return m.UUID, nil }}).Middleware)
	}
	return w, w.run(ctx, router)
}

// stream makes the topic's stream as kaptar's driver does, and the group's consumer: one that the
// library makes is deleted when its subscriber closes, and the next one would get all events again.
func (w *running) stream() error {
	nc, err := gonats.Connect(w.env.Broker)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		return err
	}
	name := strings.ReplaceAll(w.env.Topic, ".", "_")
	if _, err := js.StreamInfo(name); err == nil {
		return nil
	}
	if _, err = js.AddStream(&gonats.StreamConfig{
		Name: name, Subjects: []string{w.env.Topic}, Storage: gonats.FileStorage, MaxAge: 7 * 24 * time.Hour, Duplicates: 10 * time.Minute,
	}); err != nil {
		return err
	}
	_, err = js.AddConsumer(name, &gonats.ConsumerConfig{
		Durable: group, DeliverGroup: group, DeliverSubject: gonats.NewInbox(), AckPolicy: gonats.AckExplicitPolicy, AckWait: 30 * time.Second,
	})
	return err
}

func (w *running) database(ctx context.Context, url string) (*stdsql.DB, error) {
	db, err := stdsql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(20) // as kaptar's
	db.SetMaxIdleConns(20)
	w.closers = append(w.closers, db.Close)
	return db, events.CreateTables(ctx, db)
}

// run runs the router until Close.
func (w *running) run(ctx context.Context, router *message.Router) error {
	w.routers = append(w.routers, router)
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	select {
	case <-router.Running():
		return nil
	case err := <-ended:
		return fmt.Errorf("the router ended: %w", err)
	}
}

// mail is the handler. Its transaction is the one of the effect; the message is acknowledged after it.
func (w *running) mail(m *message.Message) error {
	var order events.Order
	if err := json.Unmarshal(m.Payload, &order); err != nil {
		return err
	}
	w.env.Log.Begin(order.N)
	err := inTx(m.Context(), w.handle, func(tx *stdsql.Tx) error {
		_, err := tx.ExecContext(m.Context(), events.InsertEffect, order.N, m.Metadata.Get("key"))
		if err == nil {
			err = w.faults.Fail(m.UUID, false)
		}
		return err
	})
	if err != nil {
		return err
	}
	w.env.Log.Done(order.N)
	return w.faults.Fail(m.UUID, true)
}

func inTx(ctx context.Context, db *stdsql.DB, fn func(*stdsql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func payload(string) string { return "BYTEA" }

// adapters are the schema with batches of 500 and rows deleted where that can be.
func (w *running) adapters() (sql.SchemaAdapter, sql.OffsetsAdapter) {
	if w.queue {
		return sql.PostgreSQLQueueSchema{GeneratePayloadType: payload, SubscribeBatchSize: batch}, sql.PostgreSQLQueueOffsetsAdapter{DeleteOnAck: true}
	}
	return sql.DefaultPostgreSQLSchema{GeneratePayloadType: payload, SubscribeBatchSize: batch}, sql.DefaultPostgreSQLOffsetsAdapter{}
}

// Relay implements events.Running.
func (w *running) Relay(ctx context.Context, first, n int) error {
	schema, offsets := w.adapters()
	from, err := sql.NewSubscriber(sql.BeginnerFromStdSQL(w.publisher), sql.SubscriberConfig{
		SchemaAdapter: schema, OffsetsAdapter: offsets, PollInterval: w.poll, InitializeSchema: true,
	}, nil)
	if err != nil {
		return err
	}
	if err := from.SubscribeInitialize(outboxTopic); err != nil {
		return err
	}
	to, err := nats.NewPublisher(nats.PublisherConfig{
		URL: w.env.Broker, Marshaler: &nats.NATSMarshaler{}, JetStream: nats.JetStreamConfig{TrackMsgId: true},
	}, nil)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, to.Close)
	for i := first; i < first+n; i += 500 {
		err := inTx(ctx, w.publisher, func(tx *stdsql.Tx) error {
			for j := i; j < min(i+500, first+n); j++ {
				if err := w.publish(ctx, tx, j); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	if _, err := forwarder.NewForwarder(from, to, nil, forwarder.Config{ForwarderTopic: outboxTopic, Router: router}); err != nil {
		return err
	}
	w.env.Begin()
	return w.run(ctx, router)
}

// publish writes an order and its event, as part of tx.
func (w *running) publish(ctx context.Context, tx *stdsql.Tx, n int) error {
	order, key := events.OrderOf(n)
	if _, err := tx.ExecContext(ctx, events.InsertOrder, n, key); err != nil {
		return err
	}
	data, err := json.Marshal(order)
	if err != nil {
		return err
	}
	schema, _ := w.adapters()
	to, err := sql.NewPublisher(sql.TxFromStdSQL(tx), sql.PublisherConfig{SchemaAdapter: schema}, nil)
	if err != nil {
		return err
	}
	m := message.NewMessage(watermill.NewUUID(), data)
	m.Metadata.Set("key", key)
	return forwarder.NewPublisher(to, forwarder.PublisherConfig{ForwarderTopic: outboxTopic}).Publish(w.env.Topic, m)
}

// Write implements events.Running.
func (w *running) Write(ctx context.Context, n int) error {
	return inTx(ctx, w.publisher, func(tx *stdsql.Tx) error { return w.publish(ctx, tx, n) })
}

// Close implements events.Running.
func (w *running) Close() (err error) {
	for _, r := range w.routers {
		err = errors.Join(err, r.Close())
	}
	for _, c := range w.closers {
		err = errors.Join(err, c())
	}
	return err
}
