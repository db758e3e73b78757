package events

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	_ "github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

// way is how a transaction comes to the relay's notice.
type way int

const (
	inProcess way = iota // sqldb.InTx wakes it
	elsewhere            // sqldb.InTx of another instance of the service
	unnoticed            // a transaction without sqldb.InTx
)

// kaptarStack is two services as kaptar.Run runs them, with the defaults of all settings.
type kaptarStack struct {
	way     way
	ordered bool // the topic's keys are numbered
	faults  *Faults
}

// Faulty returns what opens kaptar with faults in its handler.
func Faulty(f *Faults) func(context.Context, *Env) (Running, error) {
	return kaptarStack{faults: f}.open
}

// Stacks returns kaptar's own.
func Stacks() []*Stack {
	const on = "outbox, relay, inbox mark and effect in one transaction, metrics, spans not exported"
	return []*Stack{
		{Name: "kaptar on SQLite", Ours: true, Database: SQLite, On: on, Open: kaptarStack{}.open},
		{Name: "kaptar on PostgreSQL", Ours: true, Database: Postgres, On: on, Open: kaptarStack{}.open},
	}
}

type kaptarRunning struct {
	kaptarStack
	env *Env

	stops []func() error
	db    *sql.DB
	pub   *messaging.Publisher[Order]
}

func (k kaptarStack) open(ctx context.Context, env *Env) (Running, error) {
	r := &kaptarRunning{kaptarStack: k, env: env}
	err := r.run(ctx, kaptar.Service{Name: "mail-service", Setup: func(app *kaptar.App) error {
		if _, err := tables(app); err != nil {
			return err
		}
		if r.faults != nil {
			if err := messaging.Use(app, r.faults.around); err != nil {
				return err
			}
		}
		return messaging.Subscribe(app, r.topic(), r.handle, nil)
	}}, env.Handle)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// tables returns the database of app, with the tables of all stacks.
func tables(app *kaptar.App) (*sql.DB, error) {
	db, err := app.DB(nil)
	if err != nil {
		return nil, err
	}
	return db, CreateTables(app.Context(), db)
}

func (r *kaptarRunning) topic() messaging.Topic[Order] {
	return messaging.Topic[Order]{Name: r.env.Topic, Ordered: r.ordered}
}

func (r *kaptarRunning) handle(ctx context.Context, tx *sql.Tx, e messaging.Event[Order]) error {
	r.env.Log.Begin(e.Data.N)
	if _, err := tx.ExecContext(ctx, InsertEffect, e.Data.N, e.Key); err != nil {
		return err
	}
	sqldb.AfterCommit(ctx, func() { r.env.Log.Done(e.Data.N) })
	return r.faults.Fail(e.ID, false)
}

// Relay implements Running. During Setup nothing is sent.
func (r *kaptarRunning) Relay(ctx context.Context, first, n int) error {
	publisher := kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) (err error) {
		if r.pub, err = messaging.NewPublisher(app, r.topic()); err != nil {
			return err
		}
		if r.db, err = tables(app); err != nil {
			return err
		}
		for from := first; from < first+n; from += 500 {
			err := sqldb.InTx(app.Context(), r.db, func(ctx context.Context, tx *sql.Tx) error {
				for i := from; i < min(from+500, first+n); i++ {
					if err := r.publish(ctx, tx, i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		r.env.Begin()
		return nil
	}}
	if err := r.run(ctx, publisher, r.env.Publisher); err != nil || r.way != elsewhere {
		return err
	}
	time.Sleep(100 * time.Millisecond) // until the first instance leads
	return r.run(ctx, publisher, r.env.Publisher)
}

func (r *kaptarRunning) publish(ctx context.Context, tx *sql.Tx, n int) error {
	order, key := OrderOf(n)
	if _, err := tx.ExecContext(ctx, InsertOrder, n, key); err != nil {
		return err
	}
	return r.pub.Publish(ctx, tx, key, order)
}

// Write implements Running.
func (r *kaptarRunning) Write(ctx context.Context, n int) error {
	if r.way != unnoticed {
		return sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) error { return r.publish(ctx, tx, n) })
	}
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if err := r.publish(ctx, tx, n); err != nil {
		return err
	}
	return tx.Commit()
}

// Close implements Running.
func (r *kaptarRunning) Close() (err error) {
	for _, stop := range r.stops {
		err = errors.Join(err, stop())
	}
	return err
}

// run runs a service until Close, and returns when it is ready.
func (r *kaptarRunning) run(ctx context.Context, s kaptar.Service, database string) error {
	broker := r.env.Broker
	if r.env.Durable {
		broker += "?atomic=true"
	}
	stop, err := command.Run(ctx, kaptar.Options{
		Log: io.Discard, Registry: new(discovery.Memory),
		Sources: config.Sources{Flags: map[string]string{
			"listen": "127.0.0.1:0", "database_url": database, "broker_url": broker, "drain_delay": "0s",
		}},
	}, s)
	if err == nil {
		r.stops = append(r.stops, stop)
	}
	return err
}
