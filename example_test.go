package kaptar_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

// Two services in one process; one calls the other by its name.
func ExampleRun() {
	ctx, cancel := context.WithCancel(context.Background())
	greeter := kaptar.Service{Name: "greeter", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello, %s", r.PathValue("name"))
		})
		return nil
	}}
	visitor := kaptar.Service{Name: "visitor", Setup: func(app *kaptar.App) error {
		app.Go("visit", func(context.Context) error {
			defer cancel()
			resp, err := app.Client().Get("http://greeter/greet/ada")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			fmt.Println(string(text))
			return err
		})
		return nil
	}}
	err := kaptar.Run(ctx, &kaptar.Options{
		Log: io.Discard,
		Sources: config.Sources{Defaults: map[string]string{
			"services.greeter.listen": "127.0.0.1:0",
			"services.visitor.listen": "127.0.0.1:0",
		}},
	}, greeter, visitor)
	fmt.Println(err)
	// Output:
	// hello, ada
	// <nil>
}
