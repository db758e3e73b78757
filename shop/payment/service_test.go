package payment

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
	"github.com/kaptar/kaptar/transport"
)

// A ledger is a bank that keeps every request and answers as it is told.
type ledger struct {
	mu       sync.Mutex
	requests []string // path, key, body
	answer   func(path string) (status int, body string)
}

const (
	approves = `{"id":"c1","status":"approved"}`
	declines = `{"id":"c1","status":"declined","reason":"no money"}`
)

func newLedger() *ledger {
	l := new(ledger)
	l.will(200, approves)
	return l
}

// will sets the answer to everything from now on.
func (l *ledger) will(status int, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = func(string) (int, string) { return status, body }
}

func (l *ledger) seen() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

func (l *ledger) service() kaptar.Service {
	return kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
		app.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
			var body struct {
				Order  int64 `json:"order_id"`
				Amount int64 `json:"amount_cents"`
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			l.mu.Lock()
			l.requests = append(l.requests, fmt.Sprintf("%s %s %d", r.URL.Path, r.Header.Get("Idempotency-Key"), body.Amount))
			status, text := l.answer(r.URL.Path)
			l.mu.Unlock()
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		})
		return nil
	}}
}

// start runs payment-service with a bank. No attempt is repeated by the transport.
func start(t *testing.T) (*kaptartest.System, *ledger, paymentv1.PaymentServiceClient) {
	t.Helper()
	l := newLedger()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{
		"clients.bank.retry.max":                "-1",
		"clients.bank.breaker.recovery_timeout": "200ms",
	}}, Service(), l.service())
	return sys, l, paymentv1.NewPaymentServiceClient(sys.Conn("payment-service"))
}

func charge(t *testing.T, client paymentv1.PaymentServiceClient, order int64) string {
	t.Helper()
	resp, err := client.Charge(t.Context(), &paymentv1.ChargeRequest{OrderId: order, UserId: 1, AmountCents: 1800})
	if err != nil {
		t.Fatalf("Charge order %d: %v", order, err)
	}
	if pending := resp.GetStatus() == paymentv1.PaymentStatus_PAYMENT_STATUS_PENDING; pending != (resp.GetRetryAfter().AsDuration() > 0) {
		t.Errorf("Charge order %d = %v; want a time to come again with PENDING, and only then", order, resp)
	}
	return name(resp.GetStatus())
}

func refund(t *testing.T, client paymentv1.PaymentServiceClient, order int64) string {
	t.Helper()
	resp, err := client.Refund(t.Context(), &paymentv1.RefundRequest{OrderId: order})
	if grpcstatus.Code(err) == codes.NotFound {
		return "NotFound"
	}
	if err != nil {
		t.Fatalf("Refund order %d: %v", order, err)
	}
	return name(resp.GetStatus())
}

func name(s paymentv1.PaymentStatus) string { return strings.TrimPrefix(s.String(), "PAYMENT_STATUS_") }

// TestOddOrders: each call may come again, in any order, with a bank that
// approves, declines, or fails before the call in brackets.
func TestOddOrders(t *testing.T) {
	t.Parallel()
	_, bank, client := start(t)
	for i, test := range []struct {
		calls, want string
		bank        string // paths of what the bank sees
	}{
		{"charge", "CAPTURED", "/charges"},
		{"charge charge", "CAPTURED CAPTURED", "/charges"},
		{"[decline] charge charge", "DECLINED DECLINED", "/charges"},
		{"[402] charge", "DECLINED", "/charges"},
		{"[fail] charge [approve] charge", "PENDING CAPTURED", "/charges /charges"},
		{"[nonsense] charge [decline] charge", "PENDING DECLINED", "/charges /charges"},
		{"[400] charge [approve] charge", "PENDING CAPTURED", "/charges /charges"},
		{"refund", "NotFound", ""},
		{"refund charge", "NotFound CAPTURED", "/charges"}, // nobody refunds an order before it is there
		{"charge refund", "CAPTURED REFUNDED", "/charges /refunds"},
		{"charge refund refund charge", "CAPTURED REFUNDED REFUNDED REFUNDED", "/charges /refunds"},
		{"charge [fail] refund [approve] refund", "CAPTURED PENDING REFUNDED", "/charges /refunds /refunds"},
		{"[decline] charge refund charge", "DECLINED DECLINED DECLINED", "/charges"},
		{"[fail] charge [approve] refund charge", "PENDING REFUNDED REFUNDED", "/charges /charges /refunds"},
		{"[fail] charge refund [approve] charge", "PENDING PENDING CAPTURED", "/charges /charges /charges"},
		{"[fail] charge [decline] refund", "PENDING DECLINED", "/charges /charges"},
	} {
		order, before := int64(i+1), len(bank.seen())
		bank.will(200, approves)
		var got []string
		for call := range strings.FieldsSeq(test.calls) {
			switch call {
			case "charge":
				got = append(got, charge(t, client, order))
			case "refund":
				got = append(got, refund(t, client, order))
			case "[approve]":
				bank.will(200, approves)
			case "[decline]":
				bank.will(200, declines)
			case "[402]":
				bank.will(402, `{"title":"Payment Required"}`)
			case "[400]":
				bank.will(400, `{}`)
			case "[nonsense]":
				bank.will(200, `{"status":"perhaps"}`)
			case "[fail]":
				bank.will(503, `{}`)
			}
		}
		if g := strings.Join(got, " "); g != test.want {
			t.Errorf("%q came to %s; want %s", test.calls, g, test.want)
		}
		var paths []string
		for _, request := range bank.seen()[before:] {
			path, rest, _ := strings.Cut(request, " ")
			paths = append(paths, path)
			if want := fmt.Sprintf("order-%d 1800", order); rest != want {
				t.Errorf("%q: the bank saw key and amount %q; want %q", test.calls, rest, want)
			}
		}
		if g := strings.Join(paths, " "); g != test.bank {
			t.Errorf("%q: the bank saw %q; want %q", test.calls, g, test.bank)
		}
	}
}

// TestBreaker: the fifth failure in a row keeps the bank in peace until the
// recovery time is over.
func TestBreaker(t *testing.T) {
	t.Parallel()
	bank := newLedger()
	bank.will(503, `{}`)
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"clients.bank.breaker.recovery_timeout": "1s"}}, Service(), bank.service())
	client := paymentv1.NewPaymentServiceClient(sys.Conn("payment-service"))
	began := time.Now()
	var open *paymentv1.ChargeResponse // the first answer that names the bank and its breaker
	for range 20 {
		resp, err := client.Charge(t.Context(), &paymentv1.ChargeRequest{OrderId: 1, UserId: 1, AmountCents: 1800})
		if err != nil || resp.GetStatus() != paymentv1.PaymentStatus_PAYMENT_STATUS_PENDING {
			t.Fatalf("Charge with a bank that fails = %v, %v; want PENDING", resp, err)
		}
		if open = resp; strings.Contains(resp.GetReason(), "bank") && strings.Contains(resp.GetReason(), "breaker") {
			break
		}
	}
	if n := len(bank.seen()); n < 5 || n > 5+int(time.Since(began)/time.Second) {
		t.Errorf("the bank saw %d calls until the answer was %v; want 5, and then a reason that names the bank and its breaker", n, open)
	}
	if after := open.GetRetryAfter().AsDuration(); after <= 0 || after > time.Second {
		t.Errorf("Charge with the breaker open says to come again in %v; want what is left of 1s", after)
	}
	for range 15 {
		charge(t, client, 1)
	}
	failed := len(bank.seen())
	if most := 5 + int(time.Since(began)/time.Second); failed > most { // one for each time that the recovery is over
		t.Errorf("the bank saw %d calls in %v; want at most %d", failed, time.Since(began), most)
	}
	bank.will(200, approves)
	shoptest.Eventually(t, "the payment to be captured", func() (bool, string) {
		got := charge(t, client, 1)
		return got == "CAPTURED", got
	})
	if n := len(bank.seen()); n != failed+1 {
		t.Errorf("the bank saw %d calls in all; want %d and the one that succeeded", n, failed)
	}
}

func TestConcurrentCharges(t *testing.T) {
	t.Parallel()
	_, _, client := start(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			resp, err := client.Charge(t.Context(), &paymentv1.ChargeRequest{OrderId: 1, UserId: 1, AmountCents: 1800})
			if err != nil || resp.GetStatus() != paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED {
				t.Errorf("Charge at the same time = %v, %v; want CAPTURED", resp, err)
			}
		})
	}
	wg.Wait()
}

func TestServiceREST(t *testing.T) {
	t.Parallel()
	sys, bank, client := start(t)
	bank.will(200, declines)
	charge(t, client, 7)
	resp := sys.Do("GET", "payment-service", "/v1/payments/7", "")
	if want := `{"order_id":7,"user_id":1,"amount_cents":1800,"status":"declined","reason":"no money"}`; resp.Status != 200 || strings.TrimSpace(resp.Body) != want {
		t.Errorf("GET /v1/payments/7 = %d %s; want %s", resp.Status, resp.Body, want)
	}
	for path, want := range map[string]int{"/payments/8": 404, "/payments/x": 400, "/payments/0": 400} {
		if resp := sys.Do("GET", "payment-service", path, ""); resp.Status != want {
			t.Errorf("GET %s = %d %s; want %d", path, resp.Status, resp.Body, want)
		}
	}
	bank.will(503, `{}`)
	charge(t, client, 9)
	for name, test := range map[string]struct {
		req  *paymentv1.ChargeRequest
		want codes.Code
	}{
		"no order":               {&paymentv1.ChargeRequest{UserId: 1, AmountCents: 1}, codes.InvalidArgument},
		"no user":                {&paymentv1.ChargeRequest{OrderId: 1, AmountCents: 1}, codes.InvalidArgument},
		"more than all orders":   {&paymentv1.ChargeRequest{OrderId: 1, UserId: 1, AmountCents: math.MaxInt64}, codes.InvalidArgument},
		"a gift":                 {&paymentv1.ChargeRequest{OrderId: 1, UserId: 1, AmountCents: -1}, codes.InvalidArgument},
		"no amount":              {&paymentv1.ChargeRequest{OrderId: 1, UserId: 1}, codes.InvalidArgument},
		"other amount":           {&paymentv1.ChargeRequest{OrderId: 9, UserId: 1, AmountCents: 1801}, codes.AlreadyExists},
		"other user":             {&paymentv1.ChargeRequest{OrderId: 9, UserId: 2, AmountCents: 1800}, codes.AlreadyExists},
		"a cent after the whole": {&paymentv1.ChargeRequest{OrderId: 7, UserId: 1, AmountCents: 1}, codes.AlreadyExists},
	} {
		if _, err := client.Charge(t.Context(), test.req); grpcstatus.Code(err) != test.want {
			t.Errorf("Charge with %s: %v; want %v", name, err, test.want)
		}
	}
	if _, err := client.Refund(t.Context(), &paymentv1.RefundRequest{}); grpcstatus.Code(err) != codes.InvalidArgument {
		t.Errorf("Refund with no order: %v; want InvalidArgument", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	open := func(d time.Duration) error {
		return fmt.Errorf("bank: %w", &transport.OpenError{Target: "bank", RetryAfter: d})
	}
	for _, test := range []struct {
		err  error
		want time.Duration
	}{
		{http.ErrHandlerTimeout, time.Second},
		{open(0), 50 * time.Millisecond},
		{open(2 * time.Second), 2 * time.Second},
		{open(time.Minute), 5 * time.Second},
	} {
		if got := retryAfter(test.err); got != test.want {
			t.Errorf("retryAfter(%v) = %v; want %v", test.err, got, test.want)
		}
	}
}
