package analytics

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const (
	name  = "analytics-service"
	order = `{"order_id":%d,"user_id":1,"items":[{"sku":"tea","quantity":2,"price_cents":900},{"sku":"honey","quantity":1,"price_cents":700}],"total_cents":2500}`
)

func sales(sys *kaptartest.System) string {
	return strings.TrimSpace(sys.Do("GET", name, "/sales", "").Body)
}

// topics makes the topics of all services, without which there is nothing to deliver to.
func topics() kaptar.Service {
	declare := func(app *kaptar.App) error {
		_, err := messaging.NewPublisher(app, events.OrderConfirmed)
		return err
	}
	return kaptar.Service{Name: "topics", Setup: declare}
}

// TestSales delivers every kind of event twice, some from before the service was
// first started: it counts each once.
func TestSales(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, topics())
	sys.Stop()
	for range 2 {
		sys.Deliver(shoptest.Event("order.confirmed.v1", "before", "1", fmt.Sprintf(order, 1)))
	}

	sys.Restart(Service())
	const before = `{"orders":1,"total_cents":2500,"captured_cents":0,"by_sku":{"honey":{"quantity":1,"total_cents":700},"tea":{"quantity":2,"total_cents":1800}},"placed":0,"cancelled":0,"users":0,"stock_changes":0}`
	shoptest.Eventually(t, "the order of before the start", func() (bool, string) { got := sales(sys); return got == before, got })

	for _, e := range []struct{ topic, data string }{
		{"user.registered.v1", `{"user_id":1,"username":"ada","email":"ada@example.com"}`},
		{"order.placed.v1", fmt.Sprintf(order, 2)},
		{"order.confirmed.v1", fmt.Sprintf(order, 2)},
		{"order.cancelled.v1", fmt.Sprintf(order, 3)},
		{"payment.captured.v1", `{"order_id":2,"user_id":1,"amount_cents":2500}`},
		{"stock.changed.v1", `{"sku":"tea","available":98,"reserved":0}`},
	} {
		for range 2 {
			sys.Deliver(shoptest.Event(e.topic, "event of "+e.topic, "1", e.data))
		}
		line := fmt.Sprintf("messaging_processed_total{outcome=\"duplicate\",service=%q,topic=%q} ", name, e.topic)
		shoptest.Eventually(t, line, func() (bool, string) {
			metrics := sys.Do("GET", name, "/metrics", "").Body
			n := 1
			if e.topic == "order.confirmed.v1" {
				n = 2 // with the one from before
			}
			return strings.Contains(metrics, line+fmt.Sprint(n)+"\n"), metrics
		})
	}
	const want = `{"orders":2,"total_cents":5000,"captured_cents":2500,"by_sku":{"honey":{"quantity":2,"total_cents":1400},"tea":{"quantity":4,"total_cents":3600}},"placed":1,"cancelled":1,"users":1,"stock_changes":1}`
	if got := sales(sys); got != want {
		t.Errorf("sales:\n got %s\nwant %s", got, want)
	}
	sys.Restart(Service())
	if got := sales(sys); got != want {
		t.Errorf("sales after a restart:\n got %s\nwant %s", got, want)
	}
	if got := strings.TrimSpace(sys.Do("GET", name, "/v1/sales", "").Body); got != want {
		t.Errorf("/v1/sales: got %s\nwant %s", got, want)
	}
}

// TestHostileEvents: what cannot be is a dead letter, and the sales can still be read.
func TestHostileEvents(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, Service())
	for i, e := range []struct{ topic, data string }{
		{"order.confirmed.v1", `{"order_id":1,"user_id":1,"items":[{"sku":"tea","quantity":1,"price_cents":1}],"total_cents":-100000000}`},
		{"payment.captured.v1", `{"order_id":1,"user_id":1,"amount_cents":9223372036854775807}`},
		{"payment.captured.v1", `{"order_id":2,"user_id":1,"amount_cents":9223372036854775807}`},
		{"payment.captured.v1", `{"order_id":3,"user_id":1,"amount_cents":-9223372036854775808}`},
	} {
		sys.Deliver(shoptest.Event(e.topic, fmt.Sprint("hostile-", i), "1", e.data))
	}
	shoptest.Eventually(t, "dead letters", func() (bool, string) {
		metrics := sys.Do("GET", name, "/metrics", "").Body
		return strings.Contains(metrics, `messaging_processed_total{outcome="dead",service="analytics-service",topic="payment.captured.v1"} 3`+"\n") &&
			strings.Contains(metrics, `messaging_processed_total{outcome="dead",service="analytics-service",topic="order.confirmed.v1"} 1`+"\n"), metrics
	})
	if got := sales(sys); !strings.Contains(got, `"orders":0,"total_cents":0,"captured_cents":0,"by_sku":{}`) {
		t.Errorf("got %s, want nothing counted", got)
	}
}

func TestNothingSold(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, Service())
	const want = `{"orders":0,"total_cents":0,"captured_cents":0,"by_sku":{},"placed":0,"cancelled":0,"users":0,"stock_changes":0}`
	if got := sales(sys); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestStore adds from many transactions at once, with skus in opposite orders.
func TestStore(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		tea, honey := events.ItemV1{SKU: "tea", Quantity: 2, PriceCents: 900}, events.ItemV1{SKU: "honey", Quantity: 1, PriceCents: 700}
		const n = 20
		var adding sync.WaitGroup
		for i := range n {
			adding.Go(func() {
				items := []events.ItemV1{tea, honey}
				if i%2 == 1 {
					items = []events.ItemV1{honey, tea}
				}
				err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
					if err := s.addItems(ctx, tx, items); err != nil {
						return err
					}
					return s.addTotals(ctx, tx, totals{orders: 1, totalCents: 2500})
				})
				if err != nil {
					t.Errorf("add: %v", err)
				}
			})
		}
		adding.Wait()
		sums, bySKU, err := s.read(t.Context())
		if err != nil || !maps.Equal(sums, totals{orders: n, totalCents: n * 2500}) ||
			!maps.Equal(bySKU, map[string]sale{"tea": {2 * n, 1800 * n}, "honey": {n, 700 * n}}) {
			t.Errorf("got %v, %v, %v", sums, bySKU, err)
		}
		for range 2 { // more than there can be: the sum ends at the largest integer
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				return s.addTotals(ctx, tx, totals{capturedCents: math.MaxInt64 - 1})
			})
			if err != nil {
				t.Errorf("add: %v", err)
			}
		}
		if sums, _, err := s.read(t.Context()); err != nil || sums[capturedCents] != math.MaxInt64 {
			t.Errorf("got %v, %v, want %d", sums, err, int64(math.MaxInt64))
		}
	})
}

func ExampleService() {
	analytics := Service()
	fmt.Println(analytics.Name, analytics.Version, analytics.Listen)
	// Output: analytics-service v1 :8086
}
