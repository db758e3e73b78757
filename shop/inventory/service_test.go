package inventory

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
)

// A listener is a service that keeps what it hears of the stock.
type listener struct {
	mu    sync.Mutex
	heard []string
}

func (l *listener) service() kaptar.Service {
	return kaptar.Service{Name: "listener", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, events.StockChanged, func(_ context.Context, _ *sql.Tx, e messaging.Event[events.StockChangedV1]) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.heard = append(l.heard, fmt.Sprintf("%s %d/%d", e.Key, e.Data.Available, e.Data.Reserved))
			return nil
		}, nil)
	}}
}

// of is what was heard of sku, in order.
func (l *listener) of(sku string) (heard []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.heard {
		if strings.HasPrefix(h, sku+" ") {
			heard = append(heard, h)
		}
	}
	return heard
}

func TestService(t *testing.T) {
	t.Parallel()
	l := new(listener)
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"demo": "true"}}, Service(), l.service())
	client := inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service"))
	reserve := func(order int64, items ...*inventoryv1.Item) *inventoryv1.ReserveResponse {
		t.Helper()
		resp, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: order, Items: items})
		if err != nil {
			t.Fatalf("Reserve for order %d: %v", order, err)
		}
		return resp
	}

	wantBody(t, sys, "tea", `{"sku":"tea","available":100,"reserved":0,"price_cents":900}`)
	if resp := reserve(1, &inventoryv1.Item{Sku: "tea", Quantity: 2}); !resp.GetReserved() {
		t.Errorf("Reserve 2 of 100: %v; want it reserved", resp)
	}
	wantBody(t, sys, "tea", `{"sku":"tea","available":98,"reserved":2,"price_cents":900}`)
	if resp := reserve(2, &inventoryv1.Item{Sku: "tea", Quantity: 99}); resp.GetReserved() || resp.GetReason() != "out of stock: tea (99 wanted, 98 available)" {
		t.Errorf("Reserve 99 of 98: %v; want a refusal that says so", resp)
	}
	for range 2 {
		if _, err := client.Ship(t.Context(), &inventoryv1.ShipRequest{OrderId: 1}); err != nil {
			t.Errorf("Ship order 1: %v", err)
		}
	}
	wantBody(t, sys, "tea", `{"sku":"tea","available":98,"reserved":0,"price_cents":900}`)
	reserve(3, &inventoryv1.Item{Sku: "tea", Quantity: 1})
	if _, err := client.Release(t.Context(), &inventoryv1.ReleaseRequest{OrderId: 3}); err != nil {
		t.Errorf("Release order 3: %v", err)
	}
	if resp := sys.Do("PUT", "inventory-service", "/v1/stock/milk", `{"available":5,"price_cents":120}`); resp.Status != http.StatusOK {
		t.Errorf("PUT /v1/stock/milk = %d %s; want 200", resp.Status, resp.Body)
	}
	wantBody(t, sys, "milk", `{"sku":"milk","available":5,"reserved":0,"price_cents":120}`)

	want := []string{"tea 100/0", "tea 98/2", "tea 98/0", "tea 97/1", "tea 98/0"}
	shoptest.Eventually(t, "the events about tea", func() (bool, string) {
		return len(l.of("tea")) >= len(want), fmt.Sprint(l.of("tea"))
	})
	if got := l.of("tea"); !slices.Equal(got, want) {
		t.Errorf("heard of tea: %q; want %q", got, want)
	}

	sys.Restart(Service(), l.service()) // the demo data come once
	wantBody(t, sys, "tea", `{"sku":"tea","available":98,"reserved":0,"price_cents":900}`)
}

func wantBody(t *testing.T, sys *kaptartest.System, sku, want string) {
	t.Helper()
	resp := sys.Do("GET", "inventory-service", "/stock/"+sku, "")
	if got := strings.TrimSpace(resp.Body); resp.Status != http.StatusOK || got != want {
		t.Errorf("GET /stock/%s = %d %s; want %s", sku, resp.Status, got, want)
	}
}

func TestServiceRefuses(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service")}, Service())
	wantBody(t, sys, "tea", `{"sku":"tea","available":0,"reserved":0,"price_cents":900}`) // no demo
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/stock/gold", "", 404},
		{"PUT", "/stock/tea", `{"available":-1}`, 400},
		{"PUT", "/stock/tea", `{"price_cents":1}`, 400},
		{"PUT", "/stock/tea", `{"available":1,"price_cents":0}`, 400},
		{"PUT", "/stock/T%20ea", `{"available":1}`, 400},
	} {
		resp := sys.Do(test.method, "inventory-service", test.path, test.body)
		if resp.Status != test.want || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s %s %s = %d %s; want a problem with %d", test.method, test.path, test.body, resp.Status, resp.Body, test.want)
		}
	}

	client := inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service"))
	tea := &inventoryv1.Item{Sku: "tea", Quantity: 1}
	for name, test := range map[string]struct {
		call func() error
		want codes.Code
	}{
		"Reserve without an order": {func() error {
			_, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{Items: []*inventoryv1.Item{tea}})
			return err
		}, codes.InvalidArgument},
		"Reserve nothing": {func() error {
			_, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: 1})
			return err
		}, codes.InvalidArgument},
		"Reserve twice the same": {func() error {
			_, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: 1, Items: []*inventoryv1.Item{tea, {Sku: "coffee", Quantity: 1}, tea}})
			return err
		}, codes.InvalidArgument},
		"Reserve less than one": {func() error {
			_, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: 1, Items: []*inventoryv1.Item{{Sku: "tea"}}})
			return err
		}, codes.InvalidArgument},
		"Reserve too much": {func() error {
			_, err := client.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: 1, Items: slices.Repeat([]*inventoryv1.Item{tea}, 101)})
			return err
		}, codes.InvalidArgument},
		"ask for too many prices": {func() error {
			_, err := client.Prices(t.Context(), &inventoryv1.PricesRequest{Skus: slices.Repeat([]string{"tea"}, 101)})
			return err
		}, codes.InvalidArgument},
		"Ship what is not reserved": {func() error {
			_, err := client.Ship(t.Context(), &inventoryv1.ShipRequest{OrderId: 1})
			return err
		}, codes.FailedPrecondition},
		"Release without an order": {func() error {
			_, err := client.Release(t.Context(), &inventoryv1.ReleaseRequest{})
			return err
		}, codes.InvalidArgument},
	} {
		if err := test.call(); status.Code(err) != test.want {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
	}
}

func TestPrices(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service")}, Service())
	client := inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service"))
	resp, err := client.Prices(t.Context(), &inventoryv1.PricesRequest{Skus: []string{"tea", "coffee", "honey"}})
	if got := resp.GetPriceCents(); err != nil || len(got) != 3 || got["tea"] != 900 || got["coffee"] != 1250 || got["honey"] != 700 {
		t.Errorf("Prices = %v, %v; want tea 900, coffee 1250, honey 700", got, err)
	}
	_, err = client.Prices(t.Context(), &inventoryv1.PricesRequest{Skus: []string{"tea", "gold", "silver"}})
	details := status.Convert(err).Details()
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "gold") || len(details) != 1 {
		t.Fatalf("Prices with gold: %v, details %v; want NOT_FOUND that names gold, with one detail", err, details)
	}
	if info, ok := details[0].(*errdetails.ResourceInfo); !ok || info.GetResourceName() != "gold" {
		t.Errorf("the detail is %v; want a ResourceInfo that names gold", details[0])
	}
}
