package order

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/shop/inventory"
	"github.com/kaptar/kaptar/shop/payment"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// A gate stands in front of all neighbours of order-service. It can hold the
// calls of one method, before they are passed on or before their answers are
// passed back, until the caller goes away. It can also lose one answer.
type gate struct {
	inventoryv1.UnimplementedInventoryServiceServer
	paymentv1.UnimplementedPaymentServiceServer
	inventory inventoryv1.InventoryServiceClient
	payment   paymentv1.PaymentServiceClient

	mu      sync.Mutex
	edge    string        // "before Reserve", "after Ship", "lose Charge"; "" lets all pass
	reached chan struct{} // closed when a call is held
}

// hold starts holding at edge and returns what is closed when a call is there.
func (g *gate) hold(edge string) (reached <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.edge, g.reached = edge, make(chan struct{})
	return g.reached
}

// at holds the call of ctx if it is at the edge.
func (g *gate) at(ctx context.Context, edge string) error {
	g.mu.Lock()
	held := g.edge == edge
	if held {
		select {
		case <-g.reached:
		default:
			close(g.reached)
		}
	}
	g.mu.Unlock()
	if !held {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// lose reports whether the answer of method is to be lost, which it is once.
func (g *gate) lose(method string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.edge != "lose "+method {
		return false
	}
	g.edge = ""
	close(g.reached)
	return true
}

func pass[Req, Resp any](ctx context.Context, g *gate, method string, req Req, call func(context.Context, Req, ...grpc.CallOption) (Resp, error)) (none Resp, err error) {
	if err := g.at(ctx, "before "+method); err != nil {
		return none, err
	}
	resp, err := call(ctx, req)
	if g.lose(method) {
		return none, grpcstatus.Error(codes.Internal, "the answer was lost")
	}
	if err := g.at(ctx, "after "+method); err != nil {
		return none, err
	}
	return resp, err
}

func (g *gate) Prices(ctx context.Context, req *inventoryv1.PricesRequest) (*inventoryv1.PricesResponse, error) {
	return g.inventory.Prices(ctx, req)
}

func (g *gate) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	return pass(ctx, g, "Reserve", req, g.inventory.Reserve)
}

func (g *gate) Release(ctx context.Context, req *inventoryv1.ReleaseRequest) (*inventoryv1.ReleaseResponse, error) {
	return pass(ctx, g, "Release", req, g.inventory.Release)
}

func (g *gate) Ship(ctx context.Context, req *inventoryv1.ShipRequest) (*inventoryv1.ShipResponse, error) {
	return pass(ctx, g, "Ship", req, g.inventory.Ship)
}

func (g *gate) Charge(ctx context.Context, req *paymentv1.ChargeRequest) (*paymentv1.ChargeResponse, error) {
	return pass(ctx, g, "Charge", req, g.payment.Charge)
}

// neighbours runs the services that order-service needs, behind a gate, and returns
// the settings with which it finds them.
func neighbours(t *testing.T) (*gate, *kaptartest.System, *ledger, map[string]string) {
	t.Helper()
	bank := newLedger()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{
		"demo": "true", "clients.bank.retry.max": "-1", // its calls are counted
	}}, inventory.Service(), payment.Service(), bank.service())
	g := &gate{
		inventory: inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service")),
		payment:   paymentv1.NewPaymentServiceClient(sys.Conn("payment-service")),
	}
	server := grpc.NewServer()
	inventoryv1.RegisterInventoryServiceServer(server, g)
	paymentv1.RegisterPaymentServiceServer(server, g)
	userv1.RegisterUserServiceServer(server, users{})
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listen) // returns nil after Stop
	t.Cleanup(server.Stop)
	// The keys of user-service are asked for over HTTP. An answer without them is no failure, of which five
	// in a row, as there are between two orders on a slow machine, would open the breaker for gRPC too.
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	var table []string
	for _, name := range []string{"user-service", "inventory-service", "payment-service"} {
		table = append(table, fmt.Sprintf("%s=%s|%s", name, web.Listener.Addr(), listen.Addr()))
	}
	return g, sys, bank, map[string]string{"discovery_url": "static:" + strings.Join(table, ",")}
}

// TestRestartAtEveryEdge stops order-service while a call is held at each edge of
// the checkout, starts it again on the same database, and wants the order to end
// the way it would have, once.
func TestRestartAtEveryEdge(t *testing.T) {
	t.Parallel()
	g, others, bank, sources := neighbours(t)
	heard := new(listener)
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: sources}, Service(), heard.service())
	stock := 100
	for _, test := range []struct {
		edges  []string
		decide func()
		body   string
		takes  int // of tea
		end    string
		bank   int // calls that it sees
	}{
		{[]string{"before Reserve", "after Reserve", "before Charge", "after Charge", "before Ship", "after Ship"},
			bank.approve, tea, 2, "confirmed, placed", 1},
		{[]string{"before Reserve", "after Reserve", "before Charge", "after Charge", "before Release", "after Release"},
			bank.decline, tea, 0, "cancelled payment declined: no money, placed", 1},
		{[]string{"before Reserve", "after Reserve"},
			bank.approve, `{"user_id":1,"items":[{"sku":"coffee","quantity":101}]}`, 0,
			"cancelled out of stock: coffee (101 wanted, 100 available), placed", 0},
	} {
		for _, edge := range test.edges {
			test.decide()
			reached := g.hold(edge)
			o, resp := place(t, sys, "", test.body)
			if o.ID == 0 {
				t.Fatalf("POST /orders = %d %s; want 201", resp.Status, resp.Body)
			}
			select {
			case <-reached:
			case <-t.Context().Done():
				t.Fatalf("no call came %s", edge)
			}
			if got := get(t, sys, 1, o.ID); got.Status != pending || got.Reason != "" {
				t.Errorf("%s the order is %+v; want it pending", edge, got)
			}
			sys.Stop()
			g.hold("")
			sys.Restart(Service(), heard.service())
			ended(t, sys, 1, o.ID)
			wantHeard(t, heard, o.ID, test.end)
			stock -= test.takes
			wantStock(t, others, fmt.Sprintf("%d/0", stock))
			requests, _ := bank.seen()
			key, seen := fmt.Sprintf("order-%d", o.ID), 0
			for _, r := range requests {
				if r == key {
					seen++
				}
			}
			if seen != test.bank {
				t.Errorf("%s: the bank saw %d charges of the order; want %d", edge, seen, test.bank)
			}
		}
	}
}

// TestLostAnswers: an error of a call says nothing about what was done, so the
// step is done again and the order ends the way it would have.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	g, others, bank, sources := neighbours(t)
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: sources}, Service())
	stock := 100
	for _, method := range []string{"Reserve", "Charge", "Ship", "Release"} {
		want := confirmed
		bank.approve()
		if stock -= 2; method == "Release" {
			want, stock = cancelled, stock+2
			bank.decline()
		}
		lost := g.hold("lose " + method)
		o, _ := place(t, sys, "", tea)
		if o = ended(t, sys, 1, o.ID); o.Status != want {
			t.Errorf("with the answer of %s lost the order ended as %+v; want it %s", method, o, want)
		}
		select {
		case <-lost:
		default:
			t.Errorf("no answer of %s was lost", method)
		}
		wantStock(t, others, fmt.Sprintf("%d/0", stock))
	}
}

// TestTwoInstances: two order-services on one database take each order to its end
// once, whoever does it.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	url := servertest.Database(t)
	_, others, bank, sources := neighbours(t)
	heard := new(listener)
	sources["services.order-service.database_url"] = url
	first := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: sources}, Service(), heard.service())
	systems := []*kaptartest.System{
		first, kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: sources, Beside: first}, Service()),
	}
	var ids []int64
	for i := range 30 {
		o, resp := place(t, systems[i%2], fmt.Sprintf("k%d", i/2), tea) // both get each order
		if o.ID == 0 {
			t.Fatalf("POST /orders = %d %s; want 201", resp.Status, resp.Body)
		}
		ids = append(ids, o.ID)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) != 15 {
		t.Errorf("15 keys made %d orders", len(ids))
	}
	for i, id := range ids {
		if o := ended(t, systems[i%2], 1, id); o.Status != confirmed {
			t.Errorf("order %d ended as %+v; want it confirmed", id, o)
		}
		wantHeard(t, heard, id, "confirmed, placed")
	}
	wantStock(t, others, "70/0")
	requests, _ := bank.seen()
	slices.Sort(requests)
	if n := len(slices.Compact(requests)); n != 15 {
		t.Errorf("the bank saw %d orders; want 15", n)
	}
}
