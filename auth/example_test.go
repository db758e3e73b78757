package auth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
)

// A service protects itself during Setup. Settings such as auth.issuers.shop.issuer say whom it knows.
func ExampleProtect() {
	service := kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /orders/{user_id}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "orders, read by %s", auth.From(r.Context()).Subject)
		})
		return auth.Protect(app, auth.Policies{
			"GET /orders/{user_id}": auth.Any(auth.Owner("user_id"), auth.Scope("orders:read")),
		}, nil)
	}}
	_ = service
	// Output:
}

// A plain handler is protected without kaptar's App.
func ExampleAuth_Require() {
	const key = "t8Kq2…" // which the machine keeps; the service knows its hash only
	hash := sha256.Sum256([]byte(key))
	a, err := auth.New(&auth.Options{Credentials: auth.Credentials{Keys: map[string]auth.Key{
		"cron": {SHA256: hex.EncodeToString(hash[:]), Scopes: []string{"reports:write"}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("POST /reports", a.Require(auth.Scope("reports:write"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "written by %s", auth.From(r.Context()).Subject)
	})))
	for _, shown := range []string{key, "another"} {
		r := httptest.NewRequest("POST", "/reports", nil)
		r.Header.Set("X-Api-Key", shown)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			fmt.Println(w.Code, w.Body)
		} else {
			fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
		}
	}
	// Output:
	// 200 written by key:cron
	// 401 Bearer error="invalid_token"
}
