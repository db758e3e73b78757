package order

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/shop/inventory"
	"github.com/kaptar/kaptar/shop/payment"
	orderv1 "github.com/kaptar/kaptar/shop/proto/order/v1"
)

const tea = `{"user_id":1,"items":[{"sku":"tea","quantity":2}]}`

// start runs order-service with real neighbours, users 1 to 9 and a bank. There are 100
// of each sku.
func start(t *testing.T) (*kaptartest.System, *ledger, *listener) {
	t.Helper()
	bank, heard := newLedger(), new(listener)
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"demo": "true"}},
		Service(), inventory.Service(), payment.Service(), users{}.service(), bank.service(), heard.service())
	return sys, bank, heard
}

func TestConfirmed(t *testing.T) {
	t.Parallel()
	sys, bank, heard := start(t)
	resp := sys.Do("POST", "order-service", "/v1/orders", tea)
	want := `{"id":1,"user_id":1,"status":"pending","items":[{"sku":"tea","quantity":2,"price_cents":900}],"total_cents":1800}`
	if got := strings.TrimSpace(resp.Body); resp.Status != http.StatusCreated || got != want {
		t.Fatalf("POST /v1/orders = %d %s; want 201 %s", resp.Status, got, want)
	}
	if o := ended(t, sys, 1, 1); o.Status != confirmed || o.Reason != "" {
		t.Errorf("the order ended as %+v; want it confirmed", o)
	}
	wantStock(t, sys, "98/0")
	wantHeard(t, heard, 1, "confirmed, placed")
	if charged := bank.charged(); !slices.Equal(charged, []string{"order-1"}) {
		t.Errorf("the bank saw %q; want order-1", charged)
	}
	if resp := sys.Do("GET", "payment-service", "/payments/1", ""); !strings.Contains(resp.Body, `"amount_cents":1800,"status":"captured"`) {
		t.Errorf("the payment is %s; want 1800 captured", resp.Body)
	}
	if resp := sys.Do("GET", "order-service", "/v1/orders/2/1", ""); resp.Status != http.StatusNotFound {
		t.Errorf("another user's order: %d %s; want 404", resp.Status, resp.Body)
	}
}

func TestOutOfStock(t *testing.T) {
	t.Parallel()
	sys, bank, heard := start(t)
	o, _ := place(t, sys, "", `{"user_id":1,"items":[{"sku":"honey","quantity":1},{"sku":"tea","quantity":101}]}`)
	o = ended(t, sys, 1, o.ID)
	const reason = "out of stock: tea (101 wanted, 100 available)"
	if o.Status != cancelled || o.Reason != reason {
		t.Errorf("the order ended as %+v; want it cancelled: %s", o, reason)
	}
	wantStock(t, sys, "100/0")
	wantHeard(t, heard, o.ID, "cancelled "+reason+", placed")
	if requests, _ := bank.seen(); len(requests) != 0 {
		t.Errorf("the bank saw %q; want nothing", requests)
	}
}

func TestDeclined(t *testing.T) {
	t.Parallel()
	sys, bank, heard := start(t)
	bank.decline()
	o, _ := place(t, sys, "", tea)
	o = ended(t, sys, 1, o.ID)
	if o.Status != cancelled || o.Reason != "payment declined: no money" {
		t.Errorf("the order ended as %+v; want it cancelled with the bank's reason", o)
	}
	wantStock(t, sys, "100/0")
	wantHeard(t, heard, o.ID, "cancelled payment declined: no money, placed")
}

// TestBankAway: the order stays pending, the fifth failure opens the breaker, and
// once the bank is back the order is completed.
func TestBankAway(t *testing.T) {
	t.Parallel()
	const recovery = 3 * time.Second
	bank, heard := newLedger(), new(listener)
	bank.fail()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"demo": "true", "clients.bank.breaker.recovery_timeout": recovery.String()}},
		Service(), inventory.Service(), payment.Service(), users{}.service(), bank.service(), heard.service())
	began := time.Now()
	o, _ := place(t, sys, "", tea)
	opened := func() bool {
		return strings.Contains(sys.Do("GET", "payment-service", "/metrics", "").Body, `breaker_state{service="payment-service",target="bank"} 2`)
	}
	shoptest.Eventually(t, "the breaker to open", func() (bool, string) { return opened(), "closed" })
	failed, most := bank.failures(), 5+int(time.Since(began)/time.Second) // one for each time that the bank has said that it is ready
	if failed < 5 || failed > most {
		t.Errorf("the bank saw %d calls that failed in %v; want 5 until the breaker opens, and at most %d", failed, time.Since(began), most)
	}
	if got := get(t, sys, 1, o.ID); got.Status != pending || got.Reason != "" {
		t.Errorf("with the bank away the order is %+v; want it pending", got)
	}
	wantStock(t, sys, "98/2")
	bank.approve()
	if o = ended(t, sys, 1, o.ID); o.Status != confirmed {
		t.Errorf("with the bank back the order ended as %+v; want it confirmed", o)
	}
	wantStock(t, sys, "98/0")
	if charged := bank.charged(); !slices.Equal(charged, []string{"order-1"}) {
		t.Errorf("the bank saw %q; want order-1", charged)
	}
	wantHeard(t, heard, o.ID, "confirmed, placed")
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	sys, _, heard := start(t)
	var wg sync.WaitGroup
	answers := make([]kaptartest.Response, 12)
	orders := make([]order, len(answers))
	for i := range answers {
		wg.Go(func() { orders[i], answers[i] = place(t, sys, "k", tea) })
	}
	wg.Wait()
	first := 0
	for i, resp := range answers {
		if resp.Status != http.StatusCreated || orders[i].ID != orders[0].ID {
			t.Errorf("POST %d at the same time = %d %s; want order %d", i, resp.Status, resp.Body, orders[0].ID)
		}
		if resp.Header.Get("Idempotent-Replayed") == "" {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of 12 answers say that they are the first; want 1", first)
	}
	id := orders[0].ID
	ended(t, sys, 1, id)
	if o, resp := place(t, sys, "k", tea); o.ID != id || o.Status != confirmed || resp.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same again = %d %v %s; want order %d as it is now, replayed", resp.Status, resp.Header, resp.Body, id)
	}
	if _, resp := place(t, sys, "k", `{"user_id":1,"items":[{"sku":"tea","quantity":3}]}`); resp.Status != http.StatusUnprocessableEntity || !strings.Contains(resp.Body, "Idempotency-Key") {
		t.Errorf("the key with other content = %d %s; want 422 that names the header", resp.Status, resp.Body)
	}
	o, _ := place(t, sys, "k", `{"user_id":2,"items":[{"sku":"tea","quantity":2}]}`)
	if o.ID == id {
		t.Errorf("another user's key gave order %d; want an order of their own", id)
	}
	ended(t, sys, 2, o.ID)
	wantStock(t, sys, "96/0")
	wantHeard(t, heard, id, "confirmed, placed")
}

func TestRefused(t *testing.T) {
	t.Parallel()
	sys, _, _ := start(t)
	many := strings.TrimSuffix(strings.Repeat(`{"sku":"tea","quantity":1},`, 51), ",")
	for name, test := range map[string]struct {
		key, body string
		status    int
		location  string
	}{
		"unknown user":     {"", `{"user_id":10,"items":[{"sku":"tea","quantity":2}]}`, 404, "body.user_id"},
		"unknown sku":      {"", `{"user_id":1,"items":[{"sku":"tea","quantity":2},{"sku":"gold","quantity":1}]}`, 400, "body.items[1].sku"},
		"sku twice":        {"", `{"user_id":1,"items":[{"sku":"tea","quantity":2},{"sku":"tea","quantity":1}]}`, 400, "body.items[1].sku"},
		"no items":         {"", `{"user_id":1,"items":[]}`, 400, "body.items"},
		"too many items":   {"", `{"user_id":1,"items":[` + many + `]}`, 400, "body.items"},
		"quantity of 0":    {"", `{"user_id":1,"items":[{"sku":"tea","quantity":0}]}`, 400, "body.items[0].quantity"},
		"quantity of 1001": {"", `{"user_id":1,"items":[{"sku":"tea","quantity":1001}]}`, 400, "body.items[0].quantity"},
		"price of one's own": {"", `{"user_id":1,"items":[{"sku":"tea","quantity":1,"price_cents":1}]}`, 400,
			"body.items[0].price_cents"},
		"no user":  {"", `{"items":[{"sku":"tea","quantity":1}]}`, 400, "body"},
		"no JSON":  {"", `tea`, 400, "body"},
		"long key": {strings.Repeat("k", 201), tea, 400, "header.Idempotency-Key"},
	} {
		_, resp := place(t, sys, test.key, test.body)
		var problem struct {
			Status int
			Errors []struct{ Location string }
		}
		resp.Decode(t, &problem)
		if resp.Status != test.status || problem.Status != test.status || len(problem.Errors) == 0 || !strings.EqualFold(problem.Errors[0].Location, test.location) {
			t.Errorf("%s: %d %s; want %d at %s", name, resp.Status, resp.Body, test.status, test.location)
		}
	}
	if resp := sys.Do("GET", "order-service", "/orders/1", ""); strings.TrimSpace(resp.Body) != `{"orders":[],"next":""}` {
		t.Errorf("orders after refusals: %s; want none", resp.Body)
	}
}

// TestNeighbourAway: an order that cannot be checked is not taken, and the client
// is told when to come again.
func TestNeighbourAway(t *testing.T) {
	t.Parallel()
	for _, away := range []string{"user-service", "inventory-service"} {
		t.Run(away, func(t *testing.T) {
			t.Parallel()
			services := map[string]func() *kaptartest.System{
				"user-service": func() *kaptartest.System {
					return kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: quick(away)}, Service(), inventory.Service())
				},
				"inventory-service": func() *kaptartest.System {
					return kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: quick(away)}, Service(), users{}.service())
				},
			}
			_, resp := place(t, services[away](), "", tea)
			if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Body, away) {
				t.Errorf("POST /orders = %d %v %s; want 503 with Retry-After that names %s", resp.Status, resp.Header, resp.Body, away)
			}
		})
	}
}

// quick bounds the wait for a service that is not there, and for no other, which may be slow.
func quick(away string) map[string]string {
	return map[string]string{"clients." + away + ".timeout": "300ms"}
}

// TestTrace: everything that is done for an order belongs to the trace of the
// request that placed it, in the background too.
func TestTrace(t *testing.T) {
	t.Parallel()
	sys, bank, heard := start(t)
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	o, _ := place(t, sys, "", tea, "Traceparent", "00-"+id+"-00f067aa0ba902b7-01")
	ended(t, sys, 1, o.ID)
	wantHeard(t, heard, o.ID, "confirmed, placed")
	_, traces := bank.seen()
	traces = append(traces, heard.traces()...)
	if len(traces) < 3 || slices.ContainsFunc(traces, func(trace string) bool { return trace != id }) {
		t.Errorf("traces at the bank and of two events: %q; want %s each time", traces, id)
	}
}

// TestManyAtOnce: orders more than the worker drives at once, and than the stock
// suffices for.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	sys, bank, heard := start(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var ids []int64
	for range 60 {
		wg.Go(func() {
			o, resp := place(t, sys, "", tea)
			if o.ID == 0 && resp.Status != http.StatusServiceUnavailable {
				t.Errorf("POST /orders = %d %s; want 201, or 503 on a busy machine", resp.Status, resp.Body)
			}
			mu.Lock()
			defer mu.Unlock()
			if o.ID != 0 {
				ids = append(ids, o.ID)
			}
		})
	}
	wg.Wait()
	for len(ids) < 60 { // the server had more to do than it can, and placed no order: its client asks again
		shoptest.Eventually(t, "an order that was refused at first", func() (bool, string) {
			o, resp := place(t, sys, "", tea)
			if o.ID != 0 {
				ids = append(ids, o.ID)
			}
			return o.ID != 0, fmt.Sprint(resp.Status, resp.Body)
		})
	}
	count := make(map[status]int)
	for _, id := range ids {
		o := ended(t, sys, 1, id)
		count[o.Status]++
		want := "confirmed, placed"
		if o.Status == cancelled {
			want = "cancelled " + o.Reason + ", placed"
		}
		wantHeard(t, heard, id, want)
	}
	if count[confirmed] != 50 || count[cancelled] != 10 {
		t.Errorf("60 orders of 2 of 100 ended %v; want 50 confirmed and 10 cancelled", count)
	}
	wantStock(t, sys, "0/0")
	if n := len(bank.charged()); n != 50 {
		t.Errorf("the bank saw %d orders; want 50", n)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	sys, _, _ := start(t)
	for range 5 {
		place(t, sys, "", tea)
	}
	for id := range int64(5) {
		ended(t, sys, 1, id+1)
	}
	var pages []string
	after := ""
	for {
		resp := sys.Do("GET", "order-service", "/orders/1?limit=2"+after, "")
		var page struct {
			Orders []order
			Next   string
		}
		resp.Decode(t, &page)
		text := ""
		for _, o := range page.Orders {
			text += fmt.Sprintf("%d %s %d;", o.ID, o.Status, o.TotalCents)
		}
		pages = append(pages, text)
		if page.Next == "" {
			break
		}
		after = "&after=" + page.Next
	}
	want := []string{"5 confirmed 1800;4 confirmed 1800;", "3 confirmed 1800;2 confirmed 1800;", "1 confirmed 1800;"}
	if !slices.Equal(pages, want) {
		t.Errorf("pages of 2: %q; want %q", pages, want)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "after=x", "after=-1"} {
		if resp := sys.Do("GET", "order-service", "/orders/1?"+query, ""); resp.Status != http.StatusBadRequest {
			t.Errorf("GET /orders/1?%s = %d %s; want 400", query, resp.Status, resp.Body)
		}
	}
	listOverRPC(t, orderv1.NewOrderServiceClient(sys.Conn("order-service")))
}

func listOverRPC(t *testing.T, client orderv1.OrderServiceClient) {
	t.Helper()
	got, err := client.GetOrder(t.Context(), &orderv1.GetOrderRequest{Id: 3})
	if o := got.GetOrder(); err != nil || o.GetId() != 3 || o.GetUserId() != 1 || o.GetStatus() != orderv1.OrderStatus_ORDER_STATUS_CONFIRMED ||
		o.GetTotalCents() != 1800 || len(o.GetItems()) != 1 || o.GetItems()[0].GetPriceCents() != 900 {
		t.Errorf("GetOrder 3 = %v, %v; want it confirmed, 2 of tea at 900", got, err)
	}
	if _, err := client.GetOrder(t.Context(), &orderv1.GetOrderRequest{Id: 99}); grpcstatus.Code(err) != codes.NotFound {
		t.Errorf("GetOrder 99: %v; want NotFound", err)
	}
	first, err := client.ListOrders(t.Context(), &orderv1.ListOrdersRequest{UserId: 1, PageSize: 3})
	if err != nil || len(first.GetOrders()) != 3 || first.GetOrders()[0].GetId() != 5 {
		t.Fatalf("ListOrders of 3 = %v, %v; want 5, 4, 3", first, err)
	}
	second, err := client.ListOrders(t.Context(), &orderv1.ListOrdersRequest{UserId: 1, PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetOrders()) != 2 || second.GetNextPageToken() != "" {
		t.Errorf("the next page = %v, %v; want 2, 1 and no more", second, err)
	}
	for _, bad := range []*orderv1.ListOrdersRequest{{UserId: 1, PageSize: -1}, {UserId: 1, PageSize: 101}, {UserId: 1, PageToken: "x"}, {UserId: 1, PageToken: "-5"}} {
		if _, err := client.ListOrders(t.Context(), bad); grpcstatus.Code(err) != codes.InvalidArgument {
			t.Errorf("ListOrders %v: %v; want InvalidArgument", bad, err)
		}
	}
}
