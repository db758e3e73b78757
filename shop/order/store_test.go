package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// records is a publish function that keeps what it is given, in the transaction.
func records(t *testing.T, db *sql.DB) (publish func(context.Context, *sql.Tx, order) error, list func() []string) {
	t.Helper()
	if _, err := db.Exec(`CREATE TABLE published (text TEXT NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	publish = func(ctx context.Context, tx *sql.Tx, o order) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO published (text) VALUES ($1)`, fmt.Sprintf("%d %s %s", o.ID, o.Status, o.Reason))
		return err
	}
	return publish, func() (texts []string) {
		rows, err := db.Query(`SELECT text FROM published`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return texts
	}
}

func teaFor(user int64) order {
	return order{UserID: user, Items: []item{{"tea", 2, 900}}, TotalCents: 1800}
}

func TestStorePlace(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		publish, published := records(t, db)
		s := &store{db, publish}
		ids := make([]int64, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				o, _, err := s.place(t.Context(), teaFor(1), "k", "")
				if err != nil {
					t.Errorf("place %d at the same time: %v", i, err)
				}
				ids[i] = o.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("8 orders with one key got the ids %v; want one", ids)
			}
		}
		for user, key := range map[int64]string{1: "other", 2: "k", 3: ""} {
			if o, isNew, err := s.place(t.Context(), teaFor(user), key, ""); err != nil || !isNew || o.ID == ids[0] {
				t.Errorf("place for user %d with key %q = order %d, new %v, %v; want a new one", user, key, o.ID, isNew, err)
			}
		}
		if _, isNew, err := s.place(t.Context(), teaFor(3), "", ""); err != nil || !isNew {
			t.Errorf("second order without a key: new %v, %v; want a new one", isNew, err)
		}
		if got := published(); len(got) != 5 {
			t.Errorf("published %q; want each of 5 orders once", got)
		}
		if o, err := s.byKey(t.Context(), 1, "k"); err != nil || o.ID != ids[0] || o.Items[0] != (item{"tea", 2, 900}) || o.TotalCents != 1800 || o.Status != pending {
			t.Errorf("byKey = %+v, %v; want order %d as it was placed", o, err, ids[0])
		}
		if _, err := s.byKey(t.Context(), 1, "none"); !errors.Is(err, errNoOrder) {
			t.Errorf("byKey of no order: %v; want errNoOrder", err)
		}
		if _, err := s.get(t.Context(), 1e6); !errors.Is(err, errNoOrder) {
			t.Errorf("get of no order: %v; want errNoOrder", err)
		}
	})
}

func TestStoreMove(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		publish, published := records(t, db)
		s := &store{db, publish}
		if _, _, err := s.place(t.Context(), teaFor(1), "", "00-parent"); err != nil {
			t.Fatal(err)
		}
		j := one(t, s)
		if j.Traceparent != "00-parent" || j.Step != reserve || j.checkout.Status != pending {
			t.Fatalf("due = %+v; want the order as it was placed", j)
		}
		stale := j
		if err := s.move(t.Context(), &j, checkout{Step: release, Attempts: 2, Status: pending, Reason: "why"}, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.move(t.Context(), &stale, checkout{Step: charge, Status: pending}, 0); !errors.Is(err, errMoved) {
			t.Errorf("move of a job that has moved: %v; want errMoved", err)
		}
		if got := one(t, s); got.checkout != (checkout{release, 2, pending, "why"}) || got.order.Reason != "" {
			t.Errorf("after the move the job is %+v; want release, 2 attempts, and the reason for the checkout alone", got)
		}
		if err := s.move(t.Context(), &j, j.checkout, time.Hour); err != nil {
			t.Fatal(err)
		}
		if due, err := s.due(t.Context(), 10); err != nil || len(due) != 0 {
			t.Errorf("due = %+v, %v; want nothing for an hour", due, err)
		}
		if err := s.move(t.Context(), &j, checkout{Step: done, Status: cancelled, Reason: "why"}, 0); err != nil {
			t.Fatal(err)
		}
		if due, err := s.due(t.Context(), 10); err != nil || len(due) != 0 {
			t.Errorf("due = %+v, %v; want nothing of what is done", due, err)
		}
		if o, err := s.get(t.Context(), j.ID); err != nil || o.Status != cancelled || o.Reason != "why" {
			t.Errorf("get = %+v, %v; want it cancelled with its reason", o, err)
		}
		if got := fmt.Sprint(published()); got != fmt.Sprintf("[%d pending  %[1]d cancelled why]", j.ID) {
			t.Errorf("published %s; want that it was placed and cancelled, each once", got)
		}
	})
}

// TestStoreMoveIsAtomic: an order whose end cannot be published has not ended.
func TestStoreMoveIsAtomic(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		full := errors.New("outbox is full")
		s := &store{db, func(_ context.Context, _ *sql.Tx, o order) error {
			if o.Status == confirmed {
				return full
			}
			return nil
		}}
		if _, _, err := s.place(t.Context(), teaFor(1), "", ""); err != nil {
			t.Fatal(err)
		}
		j := one(t, s)
		if err := s.move(t.Context(), &j, checkout{Step: done, Status: confirmed}, 0); !errors.Is(err, full) {
			t.Errorf("move = %v; want the publisher's error", err)
		}
		if got := one(t, s); got.Step != reserve || got.Version != j.Version || j.Step != reserve {
			t.Errorf("the job is %+v, in hand %+v; want both where they were", got, j)
		}
	})
}

func TestStoreDueOrder(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, func(context.Context, *sql.Tx, order) error { return nil }}
		for range 3 {
			if _, _, err := s.place(t.Context(), teaFor(1), "", ""); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Exec(`UPDATE orders SET next_at = next_at - 1000 * id`); err != nil {
			t.Fatal(err)
		}
		due, err := s.due(t.Context(), 2)
		if err != nil || len(due) != 2 || due[0].ID != 3 || due[1].ID != 2 {
			t.Errorf("due(2) = %+v, %v; want orders 3 and 2, which wait longest", due, err)
		}
	})
}

func TestStoreList(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, func(context.Context, *sql.Tx, order) error { return nil }}
		for i := range 7 {
			if _, _, err := s.place(t.Context(), teaFor(int64(1+i%2)), "", ""); err != nil {
				t.Fatal(err)
			}
		}
		var pages []string
		var before int64
		for {
			orders, next, err := s.list(t.Context(), 1, before, 2)
			if err != nil {
				t.Fatal(err)
			}
			var ids []int64
			for _, o := range orders {
				ids = append(ids, o.ID)
			}
			pages = append(pages, fmt.Sprint(ids))
			if before = next; next == 0 {
				break
			}
		}
		if got := fmt.Sprint(pages); got != "[[7 5] [3 1]]" {
			t.Errorf("pages of 2 = %s; want [[7 5] [3 1]]", got)
		}
		if orders, next, err := s.list(t.Context(), 9, 0, 2); err != nil || orders == nil || len(orders) != 0 || next != 0 {
			t.Errorf("list of nobody = %#v, %d, %v; want an empty page", orders, next, err)
		}
	})
}

// one returns the only job that is due.
func one(t *testing.T, s *store) job {
	t.Helper()
	due, err := s.due(t.Context(), 10)
	if err != nil || len(due) != 1 {
		t.Fatalf("due = %+v, %v; want one job", due, err)
	}
	return due[0]
}
