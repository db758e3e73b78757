package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/telemetry"
)

// users is a user-service with the users 1 to 9.
type users struct {
	userv1.UnimplementedUserServiceServer
}

func (users) GetUser(_ context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	if req.GetId() > 9 {
		return nil, grpcstatus.Errorf(codes.NotFound, "no user %d", req.GetId())
	}
	return &userv1.GetUserResponse{User: &userv1.User{Id: req.GetId()}}, nil
}

func (u users) service() kaptar.Service {
	return kaptar.Service{Name: "user-service", Setup: func(app *kaptar.App) error {
		userv1.RegisterUserServiceServer(app.GRPC(), u)
		return nil
	}}
}

// A ledger is a bank that keeps the key and the trace of every request.
type ledger struct {
	mu       sync.Mutex
	status   int
	body     string
	requests []string // a call that took long may be made again, with the same key
	traces   []string
	failed   int // of them
}

func newLedger() *ledger {
	l := new(ledger)
	l.approve()
	return l
}

func (l *ledger) approve() { l.will(http.StatusOK, `{"status":"approved"}`) }
func (l *ledger) decline() { l.will(http.StatusOK, `{"status":"declined","reason":"no money"}`) }
func (l *ledger) fail()    { l.will(http.StatusServiceUnavailable, `{}`) }

// will sets the answer to everything from now on.
func (l *ledger) will(status int, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status, l.body = status, body
}

func (l *ledger) seen() (requests, traces []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests), slices.Clone(l.traces)
}

// failures is how many requests failed.
func (l *ledger) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// charged is the keys of the requests, each once.
func (l *ledger) charged() []string {
	requests, _ := l.seen()
	slices.Sort(requests)
	return slices.Compact(requests)
}

func (l *ledger) service() kaptar.Service {
	return kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
		app.HandleFunc("POST /charges", func(w http.ResponseWriter, r *http.Request) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.requests = append(l.requests, r.Header.Get("Idempotency-Key"))
			l.traces = append(l.traces, telemetry.TraceID(r.Context()))
			if l.status == http.StatusServiceUnavailable {
				l.failed++
			}
			w.WriteHeader(l.status)
			fmt.Fprint(w, l.body)
		})
		return nil
	}}
}

// A listener is a service that hears of all orders.
type listener struct {
	mu    sync.Mutex
	heard map[int64][]string
	trace []string
}

func (l *listener) service() kaptar.Service {
	return kaptar.Service{Name: "listener", Setup: func(app *kaptar.App) error {
		for _, topic := range []messaging.Topic[events.OrderV1]{events.OrderPlaced, events.OrderConfirmed, events.OrderCancelled} {
			err := messaging.Subscribe(app, topic, func(ctx context.Context, _ *sql.Tx, e messaging.Event[events.OrderV1]) error {
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.heard == nil {
					l.heard = make(map[int64][]string)
				}
				text := strings.TrimSuffix(strings.TrimPrefix(topic.Name, "order."), ".v1")
				if e.Data.Reason != "" {
					text += " " + e.Data.Reason
				}
				l.heard[e.Data.OrderID] = append(l.heard[e.Data.OrderID], text)
				l.trace = append(l.trace, telemetry.TraceID(ctx))
				return nil
			}, nil)
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

// of is what was heard of an order, sorted: there is no order between topics.
func (l *listener) of(id int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Sorted(slices.Values(l.heard[id])), ", ")
}

func (l *listener) traces() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.trace)
}

// place sends an order and returns the answer.
func place(t *testing.T, sys *kaptartest.System, key, body string, headers ...string) (order, kaptartest.Response) {
	t.Helper()
	if key != "" {
		headers = append(headers, "Idempotency-Key", key)
	}
	resp := sys.Do("POST", "order-service", "/orders", body, headers...)
	var o order
	if resp.Status == http.StatusCreated {
		resp.Decode(t, &o)
	}
	return o, resp
}

// get reads one order.
func get(t *testing.T, sys *kaptartest.System, user, id int64) order {
	t.Helper()
	resp := sys.Do("GET", "order-service", fmt.Sprintf("/orders/%d/%d", user, id), "")
	var o order
	if resp.Status != http.StatusOK {
		t.Fatalf("GET order %d = %d %s; want 200", id, resp.Status, resp.Body)
	}
	resp.Decode(t, &o)
	return o
}

// ended waits until the order is not pending any more.
func ended(t *testing.T, sys *kaptartest.System, user, id int64) order {
	t.Helper()
	var o order
	shoptest.Eventually(t, fmt.Sprintf("the end of order %d", id), func() (bool, string) {
		o = get(t, sys, user, id)
		return o.Status != pending, fmt.Sprintf("%+v", o)
	})
	return o
}

// wantStock compares with available/reserved of tea.
func wantStock(t *testing.T, sys *kaptartest.System, want string) {
	t.Helper()
	var l struct{ Available, Reserved int64 }
	resp := sys.Do("GET", "inventory-service", "/stock/tea", "")
	if err := json.Unmarshal([]byte(resp.Body), &l); err != nil {
		t.Fatalf("GET /stock/tea = %d %s", resp.Status, resp.Body)
	}
	if got := fmt.Sprintf("%d/%d", l.Available, l.Reserved); got != want {
		t.Errorf("stock of tea is %s; want %s", got, want)
	}
}

// wantHeard waits until everything is heard of an order.
func wantHeard(t *testing.T, l *listener, id int64, want string) {
	t.Helper()
	shoptest.Eventually(t, fmt.Sprintf("%q to be heard of order %d", want, id), func() (bool, string) {
		return l.of(id) == want, l.of(id)
	})
}
