package kaptartest_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

const pairs = "-- +goose Up\nCREATE TABLE pairs (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER NOT NULL);"

// A crash rolls back the transaction that is open, ends what the instance has under way, and another
// instance begins with what was committed and nothing else.
func TestSimulateCrash(t *testing.T) {
	t.Parallel()
	var crashes atomic.Int64
	t.Run("all", func(t *testing.T) {
		kaptartest.Simulate(t, &kaptartest.Simulation{Seeds: 60, Faults: &kaptartest.Rates{Crash: 0.05}}, func(sim *kaptartest.Sim) {
			var lives atomic.Int64
			sim.Start(func() kaptar.Service {
				lives.Add(1)
				return kaptar.Service{Name: "pairs", Setup: func(app *kaptar.App) error {
					db, err := app.DB(fstest.MapFS{"sqlite/1_pairs.sql": {Data: []byte(pairs)}})
					app.Go("write", func(ctx context.Context) error {
						for n := 0; n < 10; {
							_ = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { // it is tried again
								if err := tx.QueryRowContext(ctx, "SELECT count(*) / 2 FROM pairs").Scan(&n); err != nil || n == 10 {
									return err
								}
								_, err1 := tx.ExecContext(ctx, "INSERT INTO pairs (n) VALUES ($1)", n)
								_, err2 := tx.ExecContext(ctx, "INSERT INTO pairs (n) VALUES ($1)", n)
								return errors.Join(err1, err2)
							})
							if !steady.Sleep(ctx, time.Second) {
								break
							}
						}
						return nil
					})
					return err
				}}
			})
			steady.Sleep(sim.Context(), 3*time.Minute)
			var all, different int
			if err := sim.DB("pairs").QueryRow("SELECT count(*), count(DISTINCT n) FROM pairs").Scan(&all, &different); err != nil || all != 20 || different != 10 {
				sim.Errorf("got %d rows, %d numbers, %v, want 20, 10", all, different, err)
			}
			if got, want := int(lives.Load()), len(sim.Faults())+1; got != want {
				sim.Errorf("got %d lives and these faults: %q", got, sim.Faults())
			}
			crashes.Add(int64(len(sim.Faults())))
		})
	})
	if crashes.Load() == 0 {
		t.Error("no seed has a crash")
	}
}

// What goes wrong with a broker happens as often as the rates say.
func TestSimulateBroker(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		rates kaptartest.Rates
		want  int64 // calls of the handler
	}{
		{"nothing", kaptartest.Rates{}, 1},
		{"refused three times", kaptartest.Rates{Refuse: 1}, 1},
		{"stored and denied three times", kaptartest.Rates{Doubt: 1}, 4},
		{"delivered twice", kaptartest.Rates{Duplicate: 1}, 2},
		{"acknowledged in vain three times", kaptartest.Rates{LoseAck: 1}, 4},
		{"lost three times", kaptartest.Rates{Lose: 1}, 1},
		{"late", kaptartest.Rates{Delay: 1}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kaptartest.Simulate(t, &kaptartest.Simulation{Seeds: 1, Faults: &c.rates}, func(sim *kaptartest.Sim) {
				var calls atomic.Int64
				sim.Start(func() kaptar.Service {
					return kaptar.Service{Name: "loans", Setup: func(app *kaptar.App) error {
						db, err1 := app.DB(nil)
						made, err2 := messaging.NewPublisher(app, loanMade)
						err3 := messaging.SubscribeAutoAck(app, loanMade, func(context.Context, messaging.Event[lent]) error {
							calls.Add(1)
							return nil
						}, nil)
						app.Go("lend", func(ctx context.Context) error {
							return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return made.Publish(ctx, tx, "dune", lent{"dune"}) })
						})
						return errors.Join(err1, err2, err3)
					}}
				})
				steady.Sleep(sim.Context(), 5*time.Minute)
				if got := calls.Load(); got != c.want {
					sim.Errorf("the handler was called %d times, want %d; faults: %q", got, c.want, sim.Faults())
				}
			})
		})
	}
}
