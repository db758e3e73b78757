package bank

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const teaForSeven = `{"order_id":7,"amount_cents":1800}`

func postCharge(sys *kaptartest.System, key, body string) kaptartest.Response {
	return sys.Do("POST", "bank", "/charges", body, "Idempotency-Key", key)
}

type books struct {
	Charges []struct {
		Key         string `json:"idempotency_key"`
		OrderID     int64  `json:"order_id"`
		AmountCents int64  `json:"amount_cents"`
		Status      string `json:"status"`
		Requests    int64  `json:"requests"`
		Failures    int64  `json:"failures"`
	} `json:"charges"`
	Approved      int64 `json:"approved"`
	ApprovedCents int64 `json:"approved_cents"`
	Declined      int64 `json:"declined"`
	Requests      int64 `json:"requests"`
	Failures      int64 `json:"failures"`
	Refunds       int64 `json:"refunds"`
	RefundedCents int64 `json:"refunded_cents"`
}

func readBooks(t *testing.T, sys *kaptartest.System, query string) books {
	t.Helper()
	var b books
	sys.Do("GET", "bank", "/charges"+query, "").Decode(t, &b)
	return b
}

// TestFaults has a bank that fails, recovers, is asked again, is started again and
// declines: one key is charged once, and nothing is forgotten.
func TestFaults(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, Service())

	if resp := sys.Do("PUT", "bank", "/faults", `{"error_rate":1.0,"delay_ms":0,"decline_rate":0.0}`); resp.Status != 200 {
		t.Fatalf("set faults: got %d %s", resp.Status, resp.Body)
	}
	for range 3 {
		resp := postCharge(sys, "order-7", teaForSeven)
		if ct := resp.Header.Get("Content-Type"); resp.Status != http.StatusServiceUnavailable || ct != "application/problem+json" {
			t.Fatalf("error_rate 1: got %d %s %s, want 503 application/problem+json", resp.Status, ct, resp.Body)
		}
	}
	if b := readBooks(t, sys, ""); b.Approved != 0 || b.Requests != 3 || b.Failures != 3 || b.Charges[0].Status != "undecided" {
		t.Errorf("after 3 failures: got %+v", b)
	}

	sys.Do("PUT", "bank", "/faults", `{}`)
	const approvedAnswer = `{"id":"order-7","status":"approved"}`
	for range 2 {
		if resp := postCharge(sys, "order-7", teaForSeven); resp.Status != 200 || strings.TrimSpace(resp.Body) != approvedAnswer {
			t.Errorf("good again: got %d %s, want %s", resp.Status, resp.Body, approvedAnswer)
		}
	}

	sys.Restart(Service())
	sys.Do("PUT", "bank", "/faults", `{"decline_rate":1}`)
	if resp := postCharge(sys, "order-7", teaForSeven); strings.TrimSpace(resp.Body) != approvedAnswer {
		t.Errorf("asked again after a restart of a bank that declines: got %s, want %s", resp.Body, approvedAnswer)
	}
	for range 2 {
		const want = `{"id":"order-8","status":"declined","reason":"insufficient funds"}`
		if resp := postCharge(sys, "order-8", `{"order_id":8,"amount_cents":700}`); resp.Status != 200 || strings.TrimSpace(resp.Body) != want {
			t.Errorf("decline_rate 1: got %d %s, want %s", resp.Status, resp.Body, want)
		}
	}
	b := readBooks(t, sys, "")
	if b.Approved != 1 || b.ApprovedCents != 1800 || b.Declined != 1 || b.Requests != 8 || b.Failures != 3 {
		t.Errorf("in the end: got %+v", b)
	}
	b = readBooks(t, sys, "?order_id=7")
	if len(b.Charges) != 1 || b.Charges[0].Requests != 6 || b.Charges[0].Failures != 3 || b.Charges[0].Status != "approved" {
		t.Errorf("order 7 in the end: got %+v", b)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	if f := (switches{DelayMS: 1500}).draw(); time.Duration(f.Delay) != 1500*time.Millisecond || f.Status != 0 {
		t.Errorf("delay_ms 1500: %+v", f)
	}
	if f := (switches{}).draw(); f.Delay != 0 || f.Status != 0 {
		t.Errorf("a good bank: %+v", f)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, Service())
	for _, body := range []string{`{"error_rate":1.5}`, `{"error_rate":-0.1}`, `{"decline_rate":2}`, `{"delay_ms":-1}`, `{"delay_ms":60001}`, `{"errors":1}`, ``} {
		if resp := sys.Do("PUT", "bank", "/faults", body); resp.Status != 400 || !strings.Contains(resp.Body, `"errors":[{"location":"body`) {
			t.Errorf("faults %s: got %d %s, want 400 with errors", body, resp.Status, resp.Body)
		}
	}
	if resp := sys.Do("GET", "bank", "/faults", ""); strings.TrimSpace(resp.Body) != `{"error_rate":0,"delay_ms":0,"decline_rate":0}` {
		t.Errorf("faults after refusals: got %s", resp.Body)
	}
	for key, body := range map[string]string{"": teaForSeven, "a": `{"order_id":7,"amount_cents":0}`, "b": `{"order_id":0,"amount_cents":1}`, strings.Repeat("k", 201): teaForSeven} {
		if resp := postCharge(sys, key, body); resp.Status != 400 {
			t.Errorf("charge with key %q, body %s: got %d %s, want 400", key, body, resp.Status, resp.Body)
		}
	}
	postCharge(sys, "order-7", teaForSeven)
	for _, other := range []string{`{"order_id":7,"amount_cents":1}`, `{"order_id":8,"amount_cents":1800}`} {
		if resp := postCharge(sys, "order-7", other); resp.Status != http.StatusUnprocessableEntity || !strings.Contains(resp.Body, "header.Idempotency-Key") {
			t.Errorf("same key, other content %s: got %d %s, want 422", other, resp.Status, resp.Body)
		}
	}
	if b := readBooks(t, sys, ""); b.Requests != 1 || b.ApprovedCents != 1800 {
		t.Errorf("after refusals: got %+v, want the one good charge", b)
	}
}

func TestRefund(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, Service())
	refund := func() kaptartest.Response {
		return sys.Do("POST", "bank", "/v1/refunds", teaForSeven, "Idempotency-Key", "order-7")
	}
	postCharge(sys, "order-7", teaForSeven)
	sys.Do("PUT", "bank", "/faults", `{"error_rate":1}`)
	if resp := refund(); resp.Status != 503 {
		t.Errorf("error_rate 1: got %d, want 503", resp.Status)
	}
	sys.Do("PUT", "bank", "/faults", `{"error_rate":0}`)
	for range 2 {
		if resp := refund(); resp.Status != 200 || !strings.Contains(resp.Body, `"refunded"`) {
			t.Errorf("got %d %s, want 200 refunded", resp.Status, resp.Body)
		}
	}
	if b := readBooks(t, sys, ""); b.Refunds != 1 || b.RefundedCents != 1800 {
		t.Errorf("refunded twice: got %+v, want one refund", b)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s, ctx := store{db}, t.Context()
		var decisions sync.Map
		var asking sync.WaitGroup
		for i := range 8 {
			asking.Go(func() {
				c, err := s.request(ctx, charge{Key: "k", OrderID: 1, AmountCents: 5}, false, func() (string, string) {
					return approved, fmt.Sprint(i)
				})
				if err != nil {
					t.Errorf("request: %v", err)
				}
				decisions.Store(c.Reason, true)
			})
		}
		asking.Wait()
		n := 0
		decisions.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("8 requests for one key at once got %d different decisions, want 1", n)
		}
		if _, err := s.request(ctx, charge{Key: "k", OrderID: 1, AmountCents: 6}, false, nil); !errors.Is(err, errOtherContent) {
			t.Errorf("other content: got %v, want errOtherContent", err)
		}
		c, err := s.request(ctx, charge{Key: "l", OrderID: 2, AmountCents: 7}, true, nil)
		if want := (charge{Key: "l", OrderID: 2, AmountCents: 7, Status: undecided, Requests: 1, Failures: 1}); err != nil || c != want {
			t.Errorf("failed request: got %+v, %v, want %+v", c, err, want)
		}
		if c, err = s.request(ctx, charge{Key: "l", OrderID: 2, AmountCents: 7}, false, func() (string, string) { return declined, "no" }); err != nil || c.Status != declined {
			t.Errorf("declined request: got %+v, %v", c, err)
		}
		for range 2 {
			if err := s.refund(ctx, "k", 1, 5); err != nil {
				t.Errorf("refund: %v", err)
			}
		}
		sum, err := s.summary(ctx)
		want := summary{Approved: 1, Declined: 1, ApprovedCents: 5, Requests: 10, Failures: 1, Refunds: 1, RefundedCents: 5}
		if err != nil || sum != want {
			t.Errorf("summary: got %+v, %v, want %+v", sum, err, want)
		}
		all, err := s.charges(ctx, 0, 10)
		if err != nil || len(all) != 2 || all[0].Key != "l" || all[1].Requests != 8 {
			t.Errorf("charges: got %+v, %v", all, err)
		}
		if one, err := s.charges(ctx, 2, 10); err != nil || !reflect.DeepEqual(one, all[:1]) {
			t.Errorf("charges of order 2: got %+v, %v, want %+v", one, err, all[:1])
		}
		if first, err := s.charges(ctx, 0, 1); err != nil || len(first) != 1 {
			t.Errorf("charges, at most 1: got %+v, %v", first, err)
		}
	})
}

func ExampleService() {
	bank := Service()
	fmt.Println(bank.Name, bank.Version, bank.Listen)
	// Output: bank v1 :8090
}
