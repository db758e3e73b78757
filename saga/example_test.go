package saga_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// A trip is booked at two services. The flight is refused, so the room is given back.
func ExampleNew() {
	type trip struct{ Room string }
	over := make(chan bool)
	service := kaptar.Service{Name: "travel", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		trips, err := saga.New(app, saga.Definition[trip]{
			Name: "trip",
			Steps: []saga.Step[trip]{
				{
					Name: "room",
					Do: func(ctx context.Context, t *trip) error {
						fmt.Println("book a room,", saga.Key(ctx))
						t.Room = "12"
						return nil
					},
					Undo: func(_ context.Context, t *trip) error {
						fmt.Println("give room", t.Room, "back")
						return nil
					},
				},
				{Name: "flight", Pivot: true, Do: func(context.Context, *trip) error { return saga.Refuse("no seat") }},
			},
			End: func(ctx context.Context, _ *sql.Tx, _ *trip, out saga.Outcome) error {
				sqldb.AfterCommit(ctx, func() { close(over) })
				fmt.Printf("%s: %s\n", out.Status, out.Reason)
				return nil
			},
		})
		if err != nil {
			return err
		}
		app.Go("a customer", func(ctx context.Context) error {
			db, err := app.DB(nil)
			if err != nil {
				return err
			}
			return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				return trips.Start(ctx, tx, "7", trip{})
			})
		})
		return nil
	}}
	dir, err := os.MkdirTemp("", "saga")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		<-over
		stop()
	}()
	err = kaptar.Run(ctx, &kaptar.Options{
		Log:     os.Stderr,
		Sources: config.Sources{Defaults: map[string]string{"database_url": "sqlite:" + filepath.Join(dir, "travel.db"), "grpc_listen": "127.0.0.1:0", "log_level": "error"}},
	}, service)
	fmt.Println(err)
	// Output:
	// book a room, trip/7/room/do
	// give room 12 back
	// compensated: no seat
	// <nil>
}
