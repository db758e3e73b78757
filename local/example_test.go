package local_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/local"
)

// A program's own main is local.Main(services...). This is what it does, here with
// the command config, which shows what the engine supplies.
func Example() {
	hello := kaptar.Service{Name: "hello", Version: "v1", Listen: ":8081", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
		return nil
	}}
	program := &kaptar.Program{Services: []kaptar.Service{hello}, Engine: &local.Engine{Dir: "/var/lib/hello"}}
	var out strings.Builder
	code := program.Run([]string{"config"}, &out, os.Stderr)
	fmt.Println("exit code", code)
	for line := range strings.Lines(out.String()) {
		if strings.HasSuffix(line, "# local\n") {
			fmt.Print(line)
		}
	}
	// Output:
	// exit code 0
	// services.hello.broker_url                  = nats://127.0.0.1:4222?atomic=true  # local
	// services.hello.database_url                = sqlite:/var/lib/hello/hello.db     # local
	// services.hello.grpc_listen                 = 127.0.0.1:50051                    # local
	// services.hello.listen                      = 127.0.0.1:8081                     # local
	// services.hello.redis_host                  =                                    # local
}

// An Engine keeps all its data in one directory, which belongs to one process.
func ExampleEngine() {
	dir, err := os.MkdirTemp("", "kaptar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	engine := &local.Engine{Dir: dir}
	stop, err := engine.Prepare(context.Background(), nil) // nil: nobody uses the broker
	fmt.Println(err)
	_, err = (&local.Engine{Dir: dir}).Prepare(context.Background(), nil)
	fmt.Println(err != nil)
	fmt.Println(stop(context.Background()))
	// Output:
	// <nil>
	// true
	// <nil>
}
