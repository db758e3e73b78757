package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// users goes through what a person can do right and wrong with users.
func users(t *testing.T, s *site) {
	c := s.as(t)
	const ada = `{"username":"ada","email":"ada@example.com","password":"correct horse"}`
	var user struct {
		ID int64 `json:"id"`
	}
	a := c.want(http.StatusCreated, http.MethodPost, "/v1/users", ada)
	a.into(t, &user)
	want := fmt.Sprintf(`{"id":%d,"username":"ada","email":"ada@example.com"}`, user.ID)
	if a.body != want {
		t.Errorf("created: got %s, want %s", a.body, want)
	}
	for _, path := range []string{"/v1/users/", "/users/"} {
		path += fmt.Sprint(user.ID)
		if got := c.want(http.StatusOK, http.MethodGet, path, "").body; got != want {
			t.Errorf("GET %s: got %s, want %s", path, got, want)
		}
	}
	for _, tc := range []struct {
		status             int
		method, path, body string
		says               []string
	}{
		{http.StatusNotFound, http.MethodGet, "/v1/users/999999", "", []string{"999999", `"status":404`, `"trace_id"`, `"instance":"/v1/users/999999"`}},
		{http.StatusNotFound, http.MethodGet, "/v1/nothing", "", []string{`"status":404`}},
		{http.StatusBadRequest, http.MethodPost, "/v1/users", `{"username":"bob"`, []string{`"status":400`, `"errors":[{`, "body"}},
		{http.StatusBadRequest, http.MethodPost, "/v1/users", `{"username":7,"email":"bob","password":"x"}`, []string{"body.username", "body.email", "body.password"}},
		{http.StatusConflict, http.MethodPost, "/v1/users", ada, []string{"username"}},
		{http.StatusConflict, http.MethodPost, "/v1/users", `{"username":"ADA2","email":"Ada@Example.com","password":"correct horse"}`, []string{"address"}},
		{http.StatusUnauthorized, http.MethodPost, "/v1/login", `{"username":"ada","password":"wrong horse"}`, nil},
		{http.StatusUnauthorized, http.MethodPost, "/v1/login", `{"username":"nobody","password":"wrong horse"}`, nil},
		{http.StatusNotFound, http.MethodPost, "/v1/orders", orderBody(999999, "tea", 1), []string{"999999"}},
	} {
		a := c.want(tc.status, tc.method, tc.path, tc.body)
		if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
			t.Errorf("%s %s %s: got content type %q, want application/problem+json", tc.method, tc.path, tc.body, ct)
		}
		for _, part := range tc.says {
			if !strings.Contains(a.body, part) {
				t.Errorf("%s %s %s: %s does not say %s", tc.method, tc.path, tc.body, a.body, part)
			}
		}
	}
	var login struct {
		Token string `json:"token"`
	}
	c.want(http.StatusOK, http.MethodPost, "/v1/login", `{"username":"ada","password":"correct horse"}`).into(t, &login)
	if strings.Count(login.Token, ".") != 2 {
		t.Errorf("login: got the token %q, want a JWT", login.Token)
	}
}

// confirmed places an order, twice under one key, and follows it to the mail and
// the sales.
func confirmed(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "confirmed", 100)
	user := c.signUp("confirmed")
	var placed [2]orderView
	for i := range placed {
		a := c.as(user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(user, "confirmed", 2), "Idempotency-Key: k1")
		a.into(t, &placed[i])
	}
	if placed[0].TotalCents != 2*price || placed[1].ID != placed[0].ID {
		t.Errorf("the same key twice: got %+v, want one order of %d cents", placed, 2*price)
	}
	id := placed[0].ID
	s.note(entry{id, user, "confirmed", 2, 2 * price, "confirmed"})
	c.settled(user, 1, "confirmed")
	c.answers("/v1/stock/confirmed", `"available":98`, `"reserved":0`)
	c.as(user).answers(fmt.Sprintf("/v1/mails/%d", user), fmt.Sprintf("Order %d is confirmed", id))
	c.answers("/v1/sales", fmt.Sprintf(`"confirmed":{"quantity":2,"total_cents":%d}`, 2*price))
	c.as(user).answers(fmt.Sprintf("/v1/payments/%d", id), "captured")
	if a := c.charges(fmt.Sprintf("?order_id=%d", id)); len(a.Charges) != 1 || a.Charges[0].AmountCents != 2*price {
		t.Errorf("the bank: got %+v, want one charge of %d", a.Charges, 2*price)
	}
}

// outOfStock places an order for more than there is.
func outOfStock(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "scarce", 5)
	user := c.signUp("scarce")
	o := s.order(t, user, "scarce", 6, "cancelled")
	if orders := c.settled(user, 1, "cancelled"); !strings.Contains(orders[0].Reason, "scarce") {
		t.Errorf("cancelled: got %+v, want a reason that names scarce", orders)
	}
	c.answers("/v1/stock/scarce", `"available":5`, `"reserved":0`)
	if a := c.charges(fmt.Sprintf("?order_id=%d", o.ID)); len(a.Charges) != 0 {
		t.Errorf("the bank was asked for what is not in stock: %+v", a.Charges)
	}
	s.order(t, user, "scarce", 5, "confirmed")
}

// declined has the bank refuse an order: it is cancelled and what was set aside is
// back.
func declined(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "declined", 10)
	user := c.signUp("declined")
	c.faults(`{"decline_rate":1}`)
	s.order(t, user, "declined", 3, "cancelled")
	if orders := c.settled(user, 1, "cancelled"); !strings.Contains(orders[0].Reason, "insufficient funds") {
		t.Errorf("declined: got %+v, want the bank's reason", orders)
	}
	c.faults(`{}`)
	s.audit(t)
}

// bankOutage has the bank fail: the fifth failure opens the breaker, the bank is left
// alone, the order stays pending and is confirmed after the bank is back.
func bankOutage(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "outage", 10)
	user := c.signUp("outage")
	failures, openings := c.charges("").Failures, c.openings("payment-service", "bank")
	c.faults(`{"error_rate":1}`)
	defer c.faults(`{}`)
	logged := len(s.logOf("payment-service"))
	o := s.order(t, user, "outage", 1, "confirmed")
	const isOpen = `breaker_state{service="payment-service",target="bank"} 2`
	eventually(t, func() string {
		if m := c.call(http.MethodGet, "payment-service", "/metrics", "").body; !strings.Contains(m, isOpen) {
			return "the breaker is not open"
		}
		return ""
	})
	eventually(t, func() string { // each probe that has failed since, a second later at the earliest, opens it again
		opened := c.openings("payment-service", "bank") - openings
		n := c.charges("").Failures - failures
		if opened != c.openings("payment-service", "bank")-openings || n != 4+opened {
			return fmt.Sprintf("the breaker has opened %d times after %d failures at the bank, want 5 for the first time and one for each other", opened, n)
		}
		return ""
	})
	c.answers(fmt.Sprintf("/v1/payments/%d", o.ID), "pending")
	c.settled(user, 1, "pending")
	eventually(t, func() string {
		for _, said := range []string{`"breaker opened"`, "transport: bank: breaker open, next probe in"} {
			if !strings.Contains(s.logOf("payment-service")[logged:], said) {
				return "the log of payment-service does not say " + said
			}
		}
		return ""
	})
	// Everything that does not need the bank works.
	c.as(user).want(http.StatusOK, http.MethodGet, fmt.Sprintf("/v1/users/%d", user), "")
	for _, service := range []string{"order-service", "payment-service"} {
		s.ready(t, service)
	}
	c.faults(`{}`)
	s.audit(t)
}

// openings is how often the breaker of a service for target has opened since its start.
func (c client) openings(service, target string) (n int64) {
	c.t.Helper()
	series := regexp.MustCompile(fmt.Sprintf(`(?m)^breaker_openings_total\{service=%q,target=%q[^}]*\} (\d+)$`, service, target))
	for _, found := range series.FindAllStringSubmatch(c.call(http.MethodGet, service, "/metrics", "").body, -1) {
		one, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		n += one
	}
	return n
}

// metrics looks at every service's /metrics after an order went through.
func metrics(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "metrics", 10)
	user := c.signUp("metrics")
	s.order(t, user, "metrics", 1, "confirmed")
	c.settled(user, 1, "confirmed")
	userPath := fmt.Sprintf("/users/%d", user)
	for service, path := range map[string]string{
		"gateway": "/v1" + userPath, "user-service": userPath, "order-service": "/orders/1", "inventory-service": "/stock/tea",
		"payment-service": "/payments/1", "notification-service": "/mails/1", "analytics-service": "/sales", "bank": "/charges",
	} {
		c.call(http.MethodGet, service, path, "")
		metrics := c.call(http.MethodGet, service, "/metrics", "").body
		for _, name := range []string{"http_requests_total", "http_request_duration_seconds_count", "go_goroutines", "process_resident_memory_bytes"} {
			if !strings.Contains(metrics, "\n"+name) {
				t.Errorf("/metrics of %s has no %s", service, name)
			}
		}
		if strings.Contains(metrics, `endpoint="`+userPath) || strings.Contains(metrics, `endpoint="/v1`+userPath) {
			t.Errorf("/metrics of %s has a raw path as endpoint", service)
		}
	}
	if m := c.call(http.MethodGet, "user-service", "/metrics", "").body; !strings.Contains(m, `endpoint="/users/{id}",method="GET",service="user-service",status="200"`) {
		t.Errorf("/metrics of user-service does not count GET /users/{id}:\n%s", m)
	}
}

// strangers is a trace that the gateway does not continue: an outsider does not decide what is recorded.
const strangers = "4bf92f3577b34da6a3ce929d0e0e4736"

// traced places an order whose answer names the trace that all services took part in.
func traced(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "traced", 10)
	user := c.signUp("traced")
	a := c.as(user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(user, "traced", 1), "traceparent: 00-"+strangers+"-00f067aa0ba902b7-01")
	o := s.accepted(t, a, user, "traced", 1, "confirmed")
	c.answers(fmt.Sprintf("/v1/mails/%d", user), fmt.Sprintf("Order %d is confirmed", o.ID))
	c.answers("/v1/sales", `"traced":{`)
	eventually(t, func() string { return s.spans.missing(a.header.Get("X-Request-Id")) })
}
