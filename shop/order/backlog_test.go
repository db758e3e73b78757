package order

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestBacklog(t *testing.T) {
	t.Parallel()
	b := &backlog{most: 20 * time.Second}
	at := time.Now()
	// One second passes: so many are placed, so many done.
	waiting, newest := int64(0), int64(0)
	second := func(placed, done int64) {
		at = at.Add(time.Second)
		waiting, newest = waiting+placed-done, newest+placed
		b.update(count{at, waiting, newest})
	}
	accepted := func() (n int64) {
		for !b.full() {
			n++
		}
		return n
	}
	second(0, 0)
	if got := accepted(); got != alwaysRoom {
		t.Errorf("before anything is known %d are taken, want %d", got, alwaysRoom)
	}
	second(500, 0)
	for range 60 {
		second(100, 100)
	}
	if got, want := accepted(), int64(100*20-500); got < want-20 || got > want+20 {
		t.Errorf("with 500 waiting and 100 done a second %d are taken, want about %d: the last would be done 20 s later", got, want)
	}
	second(1500, 0)
	if got := accepted(); got > 20 {
		t.Errorf("with 2,000 waiting and 100 done a second %d are taken, want next to none", got)
	}
	b.most = 0
	if b.full() {
		t.Error("an order was refused without a bound")
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		st := &store{db: db, publish: nothing, begin: nothing}
		if c, err := st.count(t.Context()); err != nil || c.waiting != 0 || c.newest != 0 {
			t.Errorf("without orders: %+v, %v", c, err)
		}
		for range 3 {
			if _, _, err := st.place(t.Context(), order{UserID: 1, Items: []item{{SKU: "tea", Quantity: 1}}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			return st.end(ctx, tx, &order{ID: 1}, saga.Outcome{Status: saga.Completed})
		})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := st.count(t.Context()); err != nil || c.waiting != 2 || c.newest != 3 {
			t.Errorf("with two of three orders waiting: %+v, %v", c, err)
		}
	})
}

// TestFull: an order beyond the bound is refused as one that may come again; one that was taken
// before is still answered.
func TestFull(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &service{
			store:   &store{db: db, publish: nothing, begin: nothing},
			backlog: &backlog{most: time.Second}, // without room
		}
		items := []item{{SKU: "tea", Quantity: 1}}
		if _, _, err := s.store.place(t.Context(), order{UserID: 1, Items: items}, "before"); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.place(t.Context(), 1, items, "new")
		refusal, ok := errors.AsType[interface {
			error
			GetHeaders() http.Header
		}](err)
		if !ok || refusal.GetHeaders().Get("Retry-After") != "5" || refusal.GetHeaders().Get("Kaptar-Overload") == "" {
			t.Errorf("without room: %v, want a refusal with Retry-After and the mark that it is nobody's fault", err)
		}
		if _, replayed, err := s.place(t.Context(), 1, items, "before"); err != nil || !replayed {
			t.Errorf("an order of before: %v, %v, want it again", replayed, err)
		}
	})
}
