package route_test

import (
	"fmt"
	"testing"

	"github.com/kaptar/kaptar/internal/route"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, method, path string
		want                  bool
	}{
		{"", "PUT", "/any/thing", true},
		{"/orders", "PUT", "/orders", true},
		{"/orders", "GET", "/orders/", false},
		{"/orders/", "GET", "/orders", false},
		{"GET /orders", "PUT", "/orders", false},
		{"GET /orders/{user_id}", "GET", "/orders/7", true},
		{"GET /orders/{user_id}", "GET", "/orders/", false},
		{"GET /orders/{user_id}", "GET", "/orders/7/8", false},
		{"GET /orders/{user_id}/{id}", "GET", "/orders/7/8", true},
		{"GET /orders/{rest...}", "GET", "/orders/7/8", true},
		{"GET /orders/{rest...}", "GET", "/orders/", true},
		{"GET /orders/{rest...}", "GET", "/order/7", false},
		{"GET /{rest...}", "GET", "/", true},
		{"/user.v1.UserService/GetUser", "POST", "/user.v1.UserService/GetUser", true},
		{"/user.v1.UserService/{method}", "POST", "/user.v1.UserService/ListUsers", true},
		{"GET /user.v1.UserService/GetUser", "POST", "/user.v1.UserService/GetUser", false},
	} {
		p, err := route.Parse(test.pattern)
		if err != nil {
			t.Error(err)
		}
		if got := p.Match(test.method, test.path); got != test.want {
			t.Errorf("%q matches %s %s: %t, want %t", test.pattern, test.method, test.path, got, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"orders", "GET orders", "get /orders", "GET  /orders", "/orders?x=1", "/orders/{id", "/orders/a{id}", "/{rest...}/x", "GET", "/a /b"} {
		if p, err := route.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, p)
		}
	}
}

func ExampleParse() {
	p, err := route.Parse("GET /orders/{user_id}")
	fmt.Println(p.Match("GET", "/orders/7"), p.Match("POST", "/orders"), err)
	// Output: true false <nil>
}
