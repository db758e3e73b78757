package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/waittest"
)

// An answer is what came back from a call.
type answer struct {
	status int
	header http.Header
	body   string
}

// into decodes the body.
func (a answer) into(t testing.TB, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), out); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// as is the client of a user that signUp has made.
func (c client) as(user int64) client {
	c.user = user
	return c
}

// call sends body to service, with headers as "Name: value". A header that is a credential takes the
// place of the client's own.
func (c client) call(method, service, path, body string, headers ...string) answer {
	c.t.Helper()
	a, err := c.try(method, service, path, body, headers...)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c client) try(method, service, path, body string, headers ...string) (answer, error) {
	scheme, web := "http://", &http.Client{Timeout: patience}
	if c.TLS != nil {
		scheme, web.Transport = "https://", &http.Transport{TLSClientConfig: c.TLS, DisableKeepAlives: true}
	}
	req, err := http.NewRequest(method, scheme+c.HTTP(service)+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	headers, err = c.authorized(headers)
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := web.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(bytes.TrimSpace(b))}, err
}

// want calls through the gateway and checks the status.
func (c client) want(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a := c.call(method, "gateway", path, body, headers...)
	if a.status != status {
		c.t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	return a
}

// read GETs path through the gateway into out and says what went wrong, if
// something did.
func (c client) read(path string, out any) (problem string) {
	a, err := c.try(http.MethodGet, "gateway", path, "")
	switch {
	case err != nil:
		return err.Error()
	case a.status != http.StatusOK:
		return fmt.Sprintf("GET %s: %d %s", path, a.status, a.body)
	}
	a.into(c.t, out)
	return ""
}

// An orderView is an order as REST shows it.
type orderView struct {
	ID         int64  `json:"id"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	TotalCents int64  `json:"total_cents"`
}

// orderBody is a request for some pieces of one sku.
func orderBody(user int64, sku string, quantity int) string {
	return fmt.Sprintf(`{"user_id":%d,"items":[{"sku":%q,"quantity":%d}]}`, user, sku, quantity)
}

// signUp makes a user and returns its id.
func (c client) signUp(name string) int64 {
	c.t.Helper()
	a := c.want(http.StatusCreated, http.MethodPost, "/v1/users",
		fmt.Sprintf(`{"username":%q,"email":"%s@example.com","password":%q}`, name, name, password), nobody)
	var user struct {
		ID int64 `json:"id"`
	}
	a.into(c.t, &user)
	c.knows(user.ID, name)
	return user.ID
}

// orders returns all orders of user, the newest first.
func (c client) orders(user int64) (orders []orderView, problem string) {
	for path := fmt.Sprintf("/v1/orders/%d?limit=100", user); ; {
		var page struct {
			Orders []orderView `json:"orders"`
			Next   string      `json:"next"`
		}
		problem = c.as(user).read(path, &page)
		if orders = append(orders, page.Orders...); problem != "" || page.Next == "" {
			return orders, problem
		}
		path = fmt.Sprintf("/v1/orders/%d?limit=100&after=%s", user, page.Next)
	}
}

// patience is how long anything here may take to come about, on a machine that
// has other things to do.
const patience = time.Minute

// eventually asks again and again until check returns "", and fails with what it
// said last.
func eventually(tb testing.TB, check func() string) { tb.Helper(); waittest.Said(tb, check) }

// settled waits until all orders of user have the status, and returns them.
func (c client) settled(user int64, n int, status string) (orders []orderView) {
	c.t.Helper()
	eventually(c.t, func() (problem string) {
		if orders, problem = c.orders(user); problem != "" {
			return problem
		}
		if len(orders) != n {
			return fmt.Sprintf("%d orders, want %d", len(orders), n)
		}
		for _, o := range orders {
			if o.Status != status {
				return fmt.Sprintf("order %d is %s %s, want %s", o.ID, o.Status, o.Reason, status)
			}
		}
		return ""
	})
	return orders
}

// answers waits until a GET through the gateway contains all of parts.
func (c client) answers(path string, parts ...string) {
	c.t.Helper()
	eventually(c.t, func() string {
		a := c.call(http.MethodGet, "gateway", path, "")
		for _, part := range parts {
			if !strings.Contains(a.body, part) {
				return fmt.Sprintf("GET %s: %d %s does not say %s", path, a.status, a.body, part)
			}
		}
		return ""
	})
}

// An account is the bank's account of its charges.
type account struct {
	Charges []struct {
		OrderID     int64  `json:"order_id"`
		AmountCents int64  `json:"amount_cents"`
		Status      string `json:"status"`
		Requests    int64  `json:"requests"`
		Failures    int64  `json:"failures"`
	} `json:"charges"`
	Approved      int64 `json:"approved"`
	ApprovedCents int64 `json:"approved_cents"`
	Failures      int64 `json:"failures"`
}

// charges asks the bank for its account; query may name an order.
func (c client) charges(query string) account {
	c.t.Helper()
	var a account
	c.call(http.MethodGet, "bank", "/charges"+query, "").into(c.t, &a)
	return a
}

// faults sets what is wrong with the bank.
func (c client) faults(body string) {
	c.t.Helper()
	if a := c.call(http.MethodPut, "bank", "/faults", body); a.status != http.StatusOK {
		c.t.Fatalf("PUT /faults %s: got %d %s", body, a.status, a.body)
	}
}
