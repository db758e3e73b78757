package kaptartest_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
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
