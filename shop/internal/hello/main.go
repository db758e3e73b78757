// Command hello is a service that imports package kaptar alone, to be measured (make bench-shop).
package main

import (
	"fmt"
	"net/http"

	"github.com/kaptar/kaptar"
)

func main() {
	kaptar.Main(kaptar.Service{Name: "hello", Version: "v1", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello, %s\n", r.PathValue("name"))
		})
		return nil
	}})
}
