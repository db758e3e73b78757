// Command thin is a service with PostgreSQL and Kafka alone, to be measured (make bench-shop).
package main

import (
	"fmt"
	"net/http"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/kafka"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	"github.com/kaptar/kaptar/messaging"
)

var greeted = messaging.Topic[string]{Name: "greeted.v1"}

func main() {
	kaptar.Main(kaptar.Service{Name: "thin", Version: "v1", Setup: func(app *kaptar.App) error {
		publisher, err := messaging.NewPublisher(app, greeted)
		if err != nil {
			return err
		}
		app.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
			if err := publisher.PublishNow(r.Context(), "", r.PathValue("name")); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintf(w, "hello, %s\n", r.PathValue("name"))
		})
		return nil
	}})
}
