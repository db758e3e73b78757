package order

import (
	"strconv"
	"testing"

	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/bank"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/shop/inventory"
	"github.com/kaptar/kaptar/shop/payment"
	"github.com/kaptar/kaptar/shop/user"
)

// TestRealNeighbours runs the checkout with nothing but services of the shop: a
// bank that fails, one that declines, and one that does neither.
func TestRealNeighbours(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"demo": "true", "clients.bank.breaker.recovery_timeout": "200ms"}},
		Service(), inventory.Service(), payment.Service(), user.Service(), bank.Service())
	var account struct{ ID int64 }
	sys.Do("POST", "user-service", "/users", `{"username":"grace","email":"grace@example.com","password":"correct horse"}`).Decode(t, &account)
	if account.ID == 0 {
		t.Fatal("no user was made")
	}
	body := `{"user_id":` + strconv.FormatInt(account.ID, 10) + `,"items":[{"sku":"tea","quantity":2}]}`

	faults(t, sys, `{"error_rate":1.0,"delay_ms":0,"decline_rate":0.0}`)
	o, resp := place(t, sys, "", body)
	if o.ID == 0 {
		t.Fatalf("POST /orders = %d %s; want 201", resp.Status, resp.Body)
	}
	type sums struct {
		Approved      int64 `json:"approved"`
		ApprovedCents int64 `json:"approved_cents"`
		Declined      int64 `json:"declined"`
		Failures      int64 `json:"failures"`
	}
	var got sums
	read := func() { sys.Do("GET", "bank", "/charges", "").Decode(t, &got) }
	shoptest.Eventually(t, "the bank to fail", func() (bool, string) {
		read()
		return got.Failures >= 5, "no failures"
	})
	if now := get(t, sys, account.ID, o.ID); now.Status != pending {
		t.Errorf("with a bank that fails the order is %+v; want it pending", now)
	}
	faults(t, sys, `{"error_rate":0.0,"delay_ms":0,"decline_rate":1.0}`)
	if o = ended(t, sys, account.ID, o.ID); o.Status != cancelled {
		t.Errorf("with a bank that declines the order ended as %+v; want it cancelled", o)
	}
	wantStock(t, sys, "100/0")
	faults(t, sys, `{"error_rate":0.0,"delay_ms":0,"decline_rate":0.0}`)
	o, _ = place(t, sys, "", body)
	if o = ended(t, sys, account.ID, o.ID); o.Status != confirmed {
		t.Errorf("the order ended as %+v; want it confirmed", o)
	}
	wantStock(t, sys, "98/0")
	read()
	if got.Approved != 1 || got.ApprovedCents != 1800 || got.Declined != 1 {
		t.Errorf("the bank counts %+v; want 1800 cents approved once, and one charge declined", got)
	}
	if _, resp := place(t, sys, "", `{"user_id":999,"items":[{"sku":"tea","quantity":2}]}`); resp.Status != 404 {
		t.Errorf("order of an unknown user: %d %s; want 404", resp.Status, resp.Body)
	}
}

func faults(t *testing.T, sys *kaptartest.System, body string) {
	t.Helper()
	if resp := sys.Do("PUT", "bank", "/faults", body); resp.Status != 200 {
		t.Fatalf("PUT /faults %s = %d %s", body, resp.Status, resp.Body)
	}
}
