package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
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

func nothing(context.Context, *sql.Tx, order) error { return nil }

func teaFor(user int64) order {
	return order{UserID: user, Items: []item{{"tea", 2, 900}}, TotalCents: 1800}
}

func TestStorePlace(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		publish, published := records(t, db)
		s := &store{db, publish, begun(t, db)}
		ids := make([]int64, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				o, _, err := s.place(t.Context(), teaFor(1), "k")
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
			if o, isNew, err := s.place(t.Context(), teaFor(user), key); err != nil || !isNew || o.ID == ids[0] {
				t.Errorf("place for user %d with key %q = order %d, new %v, %v; want a new one", user, key, o.ID, isNew, err)
			}
		}
		if _, isNew, err := s.place(t.Context(), teaFor(3), ""); err != nil || !isNew {
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

// begun is a begin function that keeps the ids it is given, in the transaction.
func begun(t *testing.T, db *sql.DB) func(context.Context, *sql.Tx, order) error {
	t.Helper()
	if _, err := db.Exec(`CREATE TABLE begun (id BIGINT PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, tx *sql.Tx, o order) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO begun (id) VALUES ($1)`, o.ID)
		return err
	}
}

func TestStoreEnd(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		publish, published := records(t, db)
		s := &store{db, publish, begun(t, db)}
		for out, want := range map[saga.Outcome]string{
			{Status: saga.Completed}:                  "confirmed ",
			{Status: saga.Compensated, Reason: "why"}: "cancelled why",
		} {
			o, _, err := s.place(t.Context(), teaFor(1), "")
			if err != nil {
				t.Fatal(err)
			}
			if err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return s.end(ctx, tx, &o, out) }); err != nil {
				t.Fatal(err)
			}
			now, err := s.get(t.Context(), o.ID)
			if got := fmt.Sprintf("%s %s", now.Status, now.Reason); err != nil || got != want {
				t.Errorf("after %+v the order is %s, %v; want %s", out, got, err, want)
			}
			if want = fmt.Sprintf("%d %s", o.ID, want); published()[len(published())-1] != want {
				t.Errorf("published %q; want %q at last", published(), want)
			}
		}
	})
}

// TestOlderVersion: orders whose checkout an older version has begun, or begins beside this one, are
// taken over once each, and one that is placed here looks done to it.
func TestOlderVersion(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		publish, _ := records(t, db)
		s := &store{db, publish, begun(t, db)}
		if _, _, err := s.place(t.Context(), teaFor(1), ""); err != nil {
			t.Fatal(err)
		}
		older := func(step string, status status) {
			t.Helper()
			_, err := db.Exec(`INSERT INTO orders (user_id, items, total_cents, status, reason, created_at, step, next_at) VALUES (1, '[]', 1, $1, 'why', 1, $2, 1)`, status, step)
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 * adoptMost / 4 {
			older("reserve", pending)
			older("release", pending)
			older("done", cancelled)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var adopting sync.WaitGroup
		for range 2 {
			adopting.Go(func() { s.adopt(ctx) })
		}
		wait := func(want int) {
			shoptest.Eventually(t, fmt.Sprintf("%d checkouts", want), func() (bool, string) {
				var got, left int
				err := db.QueryRow(`SELECT (SELECT count(*) FROM begun), (SELECT count(*) FROM orders WHERE step <> 'done')`).Scan(&got, &left)
				return err == nil && got == want && left == 0, fmt.Sprint(got, left, err)
			})
		}
		wait(1 + 2*(3*adoptMost/4))
		older("ship", pending)
		wait(2 + 2*(3*adoptMost/4))
		cancel()
		adopting.Wait()
	})
}

func TestStoreList(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, nothing, nothing}
		for i := range 7 {
			if _, _, err := s.place(t.Context(), teaFor(int64(1+i%2)), ""); err != nil {
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
