package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/transport"
)

func Example() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "two teas")
	}))
	defer srv.Close()
	registry := new(discovery.Memory)
	order := discovery.Instance{ID: "order-1", Service: "order-service", HTTP: strings.TrimPrefix(srv.URL, "http://")}
	if err := registry.Register(context.Background(), order); err != nil {
		fmt.Println(err)
	}

	tr := transport.New(&transport.Options{Caller: "shop", Resolver: registry})
	defer tr.Close()
	client := &http.Client{Transport: tr}

	resp, err := client.Get("http://order-service/orders/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output: 200 two teas
}

func ExampleErrOpen() {
	down := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	local := new(transport.Local)
	local.Add("bank-1", down, nil)
	registry := discovery.NewStatic(map[string][]discovery.Instance{"bank": {{ID: "bank-1"}}})

	tr := transport.New(&transport.Options{Resolver: registry, Local: local})
	defer tr.Close()
	client := &http.Client{Transport: tr}
	for range 6 {
		resp, err := client.Post("http://bank/charges", "application/json", nil)
		if err != nil {
			fmt.Println(errors.Is(err, transport.ErrOpen))
			continue
		}
		resp.Body.Close()
	}
	fmt.Println(tr.State("bank"))
	// Output:
	// true
	// open
}

func ExampleNewUntrusted() {
	hooks := transport.NewUntrusted(&transport.UntrustedOptions{HTTPSOnly: true})
	_, err := hooks.Post("https://169.254.169.254/latest/meta-data/", "application/json", strings.NewReader("{}"))
	if errors.Is(err, transport.ErrUntrusted) {
		fmt.Println(err)
	}
	// Output: Post "https://169.254.169.254/latest/meta-data/": transport: not allowed: address 169.254.169.254 is link-local
}
