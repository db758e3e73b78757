// Command river is a service with a job queue beside its events: one transaction stores an order,
// inserts a job of River and publishes an event of kaptar. All three are there, or none.
//
//	DATABASE_URL=postgres://… BROKER_URL=nats://localhost:4222 go run .
//	curl -X POST 'localhost:8080/orders/7?cents=900'
//
// Other services handle the event; the job is work of this service alone. The tables of both stand in
// the service's own database, so nothing else is needed for River.
package main

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/nats"     // nats://
	_ "github.com/kaptar/kaptar/drivers/postgres" // postgres://
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

//go:embed migrations
var migrations embed.FS

func main() { kaptar.Main(service(print)) }

func print(_ context.Context, order int64) error {
	fmt.Println("invoice of order", order, "is sent")
	return nil
}

// orderPlaced is the data of the topic for other services; key: order id.
type orderPlaced struct {
	OrderID int64 `json:"order_id"`
	Cents   int64 `json:"cents"`
}

var placed = messaging.Topic[orderPlaced]{Name: "order.placed.v1"}

// sendInvoice are the arguments of the job that sends the invoice of an order.
type sendInvoice struct {
	OrderID int64 `json:"order_id"`
}

// Kind is the name of the job in River's table.
func (sendInvoice) Kind() string { return "send_invoice" }

// service returns the service; send does the work of a job.
func service(send func(ctx context.Context, order int64) error) kaptar.Service {
	return kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) error {
		db, err := app.DB(migrations)
		if err != nil {
			return err
		}
		events, err := messaging.NewPublisher(app, placed)
		if err != nil {
			return err
		}
		jobs, err := queue(app, db, send)
		if err != nil {
			return err
		}
		o := &orders{db, events, jobs}
		app.HandleFunc("POST /orders/{id}", o.post)
		return nil
	}}
}

// queue returns River on the service's own database. It polls: database/sql has no LISTEN.
func queue(app *kaptar.App, db *sql.DB, send func(ctx context.Context, order int64) error) (*river.Client[*sql.Tx], error) {
	driver := riverdatabasesql.New(db)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: app.Logger()})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(app.Context(), rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[sendInvoice]) error {
		return send(ctx, job.Args.OrderID) // it may run again after a crash: give the callee job.ID as a key
	}))
	jobs, err := river.NewClient(driver, &river.Config{
		Logger: app.Logger(), Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
	})
	if err != nil {
		return nil, err
	}
	app.Go("river", func(ctx context.Context) error { // which finishes the jobs at hand when the service stops
		if err := jobs.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return jobs.Stop(stop)
	})
	return jobs, nil
}

type orders struct {
	db     *sql.DB
	events *messaging.Publisher[orderPlaced]
	jobs   *river.Client[*sql.Tx]
}

// place stores an order, with its job and its event, in one transaction. What fails in it, whichever
// comes first, takes back all three.
func (o *orders) place(ctx context.Context, id, cents int64) error {
	return sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := o.jobs.InsertTx(ctx, tx, sendInvoice{id}, nil); err != nil {
			return err
		}
		if err := o.events.Publish(ctx, tx, strconv.FormatInt(id, 10), orderPlaced{id, cents}); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO orders (id, cents) VALUES ($1, $2)`, id, cents)
		return err
	})
}

func (o *orders) post(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	cents, centsErr := strconv.ParseInt(r.FormValue("cents"), 10, 64)
	if err != nil || centsErr != nil {
		http.Error(w, "expected numbers: POST /orders/7?cents=900", http.StatusBadRequest)
		return
	}
	if err := o.place(r.Context(), id, cents); err != nil {
		http.Error(w, "the order is not stored", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}
