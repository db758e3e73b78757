package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

func Example() {
	t, err := telemetry.New(context.Background(), telemetry.Options{
		Service: "greeter", Log: telemetry.LogOptions{Output: io.Discard},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	s := server.New(server.Options{HTTP: "127.0.0.1:0", Telemetry: t})
	s.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "nobody" {
			server.WriteProblem(w, r, server.Problem{Status: http.StatusNotFound, Detail: "there is nobody", TraceID: "(varies)"})
			return
		}
		_, _ = fmt.Fprintf(w, "hello, %s\n", r.PathValue("name"))
	})
	if err := s.Listen(); err != nil {
		fmt.Println(err) // names who holds the port
		return
	}
	served := make(chan error)
	go func() { served <- s.Serve() }()
	s.SetReady(true)

	for _, path := range []string{"/hello/ada", "/hello/nobody"} {
		resp, err := http.Get("http://" + s.HTTPAddr() + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Println(resp.StatusCode, string(body))
	}
	fmt.Println(s.Shutdown(context.Background()), <-served)
	// Output:
	// 200 hello, ada
	//
	// 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"there is nobody","instance":"/hello/nobody","trace_id":"(varies)"}
	// <nil> <nil>
}
