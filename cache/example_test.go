package cache_test

import (
	"context"
	"fmt"
	"io"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/config"
)

// A value is loaded once, and again after its change.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	emails := map[string]string{"ada": "ada@example.com"} // stands for the database
	users := kaptar.Service{Name: "user-service", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		byName, err := cache.New[string](app, "emails", nil)
		if err != nil {
			return err
		}
		load := func(context.Context) (string, error) {
			fmt.Println("load")
			return emails["ada"], nil
		}
		app.Go("demonstrate", func(ctx context.Context) error {
			defer cancel()
			for range 2 {
				fmt.Println(byName.Get(ctx, "ada", load))
			}
			emails["ada"] = "countess@example.com"
			fmt.Println(byName.Delete(ctx, "ada"))
			fmt.Println(byName.Get(ctx, "ada", load))
			return nil
		})
		return nil
	}}
	inProcess := config.Sources{Defaults: map[string]string{"redis_host": ""}} // as package local has it
	fmt.Println(kaptar.Run(ctx, &kaptar.Options{Sources: inProcess, Log: io.Discard}, users))
	// Output:
	// load
	// ada@example.com <nil>
	// ada@example.com <nil>
	// <nil>
	// load
	// countess@example.com <nil>
	// <nil>
}
