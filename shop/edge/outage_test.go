package edge

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// TestDatabaseAway: a service whose database is away says so, and is called again soon after it is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	postgres := servertest.Start(t, servers.Postgres)
	orders := kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) error {
		db, err := app.DB(nil)
		if err != nil {
			return err
		}
		api, err := rest.New(app, "Orders", auth.Policies{"GET /orders/{id}": auth.Public()})
		if err != nil {
			return err
		}
		huma.Register(api, rest.Op("get", "GET /orders/{id}", "Get an order"), func(ctx context.Context, in *struct {
			ID int64 `path:"id"`
		},
		) (*struct{ Body int64 }, error) {
			out := new(struct{ Body int64 })
			return out, db.QueryRowContext(ctx, "SELECT $1::bigint", in.ID).Scan(&out.Body)
		})
		return nil
	}}
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.order-service.database_url": postgres.URL()}}, Service(), orders)
	get := func() kaptartest.Response { return sys.Do(http.MethodGet, "gateway", "/v1/orders/7", "") }
	if resp := get(); resp.Status != http.StatusOK || strings.TrimSpace(resp.Body) != "7" {
		t.Fatalf("got %d %s, want 7", resp.Status, resp.Body)
	}
	if err := postgres.Kill(); err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{}
	kaptartest.Eventually(t, "the breaker is open", func() error {
		resp := get()
		seen[resp.Status]++
		if resp.Header.Get("Retry-After") == "" {
			return fmt.Errorf("answered with %d %s", resp.Status, resp.Body)
		}
		return nil
	})
	if len(seen) != 1 || seen[http.StatusServiceUnavailable] == 0 {
		t.Errorf("answers by status without the database: %v, want 503 alone", seen)
	}
	if err := postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	kaptartest.Eventually(t, "it is called again", func() error {
		if resp := get(); resp.Status != http.StatusOK {
			return fmt.Errorf("answered with %d %s", resp.Status, resp.Body)
		}
		return nil
	})
	took := time.Since(back)
	t.Logf("called again %v after the database was back", took)
	if took > 30*time.Second {
		t.Errorf("it was called again %v after the database was back, want about a second and not the breaker's minute", took)
	}
}
