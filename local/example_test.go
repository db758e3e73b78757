package local_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/local"
)

// A program's own main is local.Main(services...). Run is the same for a program that has a command
// line of its own, or for a test: here in a directory and on ports of its own.
func Example() {
	dir, err := os.MkdirTemp("", "kaptar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	opts := &local.Options{Dir: dir, NATSListen: "127.0.0.1:0"}
	opts.Log = io.Discard
	opts.Ready = func(services []discovery.Instance) {
		defer stop()
		resp, err := http.Get("http://" + services[0].HTTP + "/hello")
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(os.Stdout, resp.Body)
	}
	hello := kaptar.Service{Name: "hello", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
		return nil
	}}
	fmt.Println(local.Run(ctx, opts, hello))
	// Output:
	// hello
	// <nil>
}
