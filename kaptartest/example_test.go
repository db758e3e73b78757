package kaptartest_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

// A test starts the services that it needs and calls them by their names. The function test stands
// for one of your own: it needs a *testing.T, so kaptartest_test.go runs the like instead.
func ExampleStart() {
	greeter := kaptar.Service{Name: "greeter", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello, %s", r.PathValue("name"))
		})
		return nil
	}}
	test := func(t *testing.T) {
		sys := kaptartest.Start(t, greeter)
		resp, err := sys.Client().Get("http://greeter/greet/ada")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "hello, ada" {
			t.Errorf("GET /greet/ada = %q, %v", text, err)
		}
	}
	_ = test
	// Output:
}

// A simulation runs services under faults, once for each seed, and checks what they have left. This
// one counts loans in the transaction of the event: each is counted once, whatever strikes.
func ExampleSimulate() {
	tables := fstest.MapFS{"sqlite/1_counts.sql": {Data: []byte("-- +goose Up\nCREATE TABLE counts (book TEXT PRIMARY KEY, n INTEGER);")}}
	counter := func() kaptar.Service {
		return kaptar.Service{Name: "counter", Setup: func(app *kaptar.App) error {
			if _, err := app.DB(tables); err != nil {
				return err
			}
			return messaging.Subscribe(app, loanMade, func(ctx context.Context, tx *sql.Tx, e messaging.Event[lent]) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO counts VALUES ($1, 1) ON CONFLICT (book) DO UPDATE SET n = n + 1", e.Data.Book)
				return err
			}, nil)
		}}
	}
	lender := func() kaptar.Service {
		return kaptar.Service{Name: "lender", Setup: func(app *kaptar.App) error {
			db, err := app.DB(fstest.MapFS{"sqlite/1_loans.sql": {Data: []byte("-- +goose Up\nCREATE TABLE loans (book TEXT PRIMARY KEY);")}})
			if err != nil {
				return err
			}
			made, err := messaging.NewPublisher(app, loanMade)
			app.Go("lend", func(ctx context.Context) error {
				return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
					r, err := tx.ExecContext(ctx, "INSERT INTO loans VALUES ('dune') ON CONFLICT DO NOTHING")
					if err != nil {
						return err
					}
					if n, err := r.RowsAffected(); err != nil || n == 0 { // before the crash
						return err
					}
					return made.Publish(ctx, tx, "dune", lent{"dune"})
				})
			})
			return err
		}}
	}
	test := func(t *testing.T) {
		kaptartest.Simulate(t, &kaptartest.Simulation{Seeds: 500}, func(sim *kaptartest.Sim) {
			sim.Start(lender)
			sim.Start(counter)
			sim.Start(counter) // another member of the group
			<-time.After(time.Minute)
			sim.Calm()
			<-time.After(time.Minute)
			var n int
			if err := sim.DB("counter").QueryRow("SELECT n FROM counts WHERE book = 'dune'").Scan(&n); err != nil || n != 1 {
				sim.Errorf("got %d, %v, want 1", n, err)
			}
		})
	}
	_ = test
	// Output:
}
