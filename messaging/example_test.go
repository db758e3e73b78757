package messaging_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

type UserRegistered struct {
	Name string `json:"name"`
}

var userRegistered = messaging.Topic[UserRegistered]{Name: "user.registered.v1"}

// One service publishes an event in a transaction; another one handles it in a
// transaction of its own.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	users := kaptar.Service{Name: "user-service", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		db, err := app.DB(nil)
		if err != nil {
			return err
		}
		registered, err := messaging.NewPublisher(app, userRegistered)
		if err != nil {
			return err
		}
		app.Go("register", func(ctx context.Context) error {
			return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				// What else the registration changes goes through tx as well.
				return registered.Publish(ctx, tx, "user-1", UserRegistered{Name: "ada"})
			})
		})
		return nil
	}}
	mails := kaptar.Service{Name: "mail-service", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, userRegistered, func(ctx context.Context, tx *sql.Tx, e messaging.Event[UserRegistered]) error {
			fmt.Printf("%s: welcome, %s (from %s)\n", e.Key, e.Data.Name, e.Source)
			cancel()
			return nil
		}, nil)
	}}
	fmt.Println(runWithBroker(ctx, users, mails))
	// Output:
	// user-1: welcome, ada (from user-service)
	// <nil>
}

// runWithBroker is what local.Main does, in a directory and on a port of its own.
func runWithBroker(ctx context.Context, services ...kaptar.Service) error {
	dir, err := os.MkdirTemp("", "kaptar")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	opts := &local.Options{Dir: dir, NATSListen: "127.0.0.1:0"}
	opts.Log = io.Discard
	return local.Run(ctx, opts, services...)
}
