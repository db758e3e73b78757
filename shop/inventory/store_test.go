package inventory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// steps does one thing after the other for an order and tells what came of each.
func steps(t *testing.T, s *store, order int64, calls ...string) (answers []string) {
	t.Helper()
	for _, call := range calls {
		var answer string
		var err error
		switch call {
		case "reserve", "reserve less":
			items := []item{{"honey", 1}, {"tea", 2}}
			if call == "reserve less" {
				items[1].Quantity = 1
			}
			var ok bool
			var reason string
			ok, reason, err = s.reserve(t.Context(), order, items)
			answer = "reserved"
			if !ok {
				answer = reason
			}
			if errors.Is(err, errOtherItems) {
				answer, err = "other items", nil
			}
		case "release":
			answer, err = "ok", s.release(t.Context(), order)
		case "ship":
			answer, err = "ok", s.ship(t.Context(), order)
			if errors.Is(err, errNotReserved) {
				answer, err = "not reserved", nil
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		answers = append(answers, answer)
	}
	return answers
}

// stock is available/reserved of tea.
func stock(t *testing.T, s *store) string {
	t.Helper()
	l, err := s.level(t.Context(), "tea")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d/%d", l.Available, l.Reserved)
}

func quiet(context.Context, *sql.Tx, level) error { return nil }

// TestOddOrders: each call may come again, and in any order.
func TestOddOrders(t *testing.T) {
	t.Parallel()
	tests := []struct{ calls, want []string }{
		{[]string{"reserve"}, []string{"reserved", "98/2"}},
		{[]string{"reserve", "reserve"}, []string{"reserved", "reserved", "98/2"}},
		{[]string{"reserve", "ship"}, []string{"reserved", "ok", "98/0"}},
		{[]string{"reserve", "ship", "ship"}, []string{"reserved", "ok", "ok", "98/0"}},
		{[]string{"reserve", "ship", "reserve"}, []string{"reserved", "ok", "reserved", "98/0"}},
		{[]string{"reserve", "ship", "release"}, []string{"reserved", "ok", "ok", "98/0"}},
		{[]string{"reserve", "release"}, []string{"reserved", "ok", "100/0"}},
		{[]string{"reserve", "release", "release"}, []string{"reserved", "ok", "ok", "100/0"}},
		{[]string{"reserve", "release", "ship"}, []string{"reserved", "ok", "not reserved", "100/0"}},
		{[]string{"reserve", "release", "reserve"}, []string{"reserved", "ok", "the order was released", "100/0"}},
		{[]string{"release", "reserve"}, []string{"ok", "reserved", "98/2"}}, // nobody cancels an order before it is there
		{[]string{"release", "reserve", "release"}, []string{"ok", "reserved", "ok", "100/0"}},
		{[]string{"reserve", "reserve less", "ship"}, []string{"reserved", "other items", "ok", "98/0"}},
		{[]string{"reserve less", "reserve"}, []string{"reserved", "other items", "99/1"}},
		{[]string{"reserve", "release", "reserve less"}, []string{"reserved", "ok", "the order was released", "100/0"}},
		{[]string{"ship", "reserve"}, []string{"not reserved", "reserved", "98/2"}},
	}
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, quiet}
		for i, test := range tests {
			if err := s.stockDemo(t.Context(), 100); err != nil { // honey, the first time
				t.Fatal(err)
			}
			if _, err := s.set(t.Context(), "tea", 100, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(`UPDATE stock SET reserved = 0`); err != nil {
				t.Fatal(err)
			}
			got := append(steps(t, s, int64(i+1), test.calls...), stock(t, s))
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%v came to %q; want %q", test.calls, got, test.want)
			}
		}
	})
}

// TestRefusalIsFinal: what one missing item refuses takes nothing of the others,
// and stays refused after the stock has grown.
func TestRefusalIsFinal(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, quiet}
		set(t, s, "honey", 5)
		set(t, s, "tea", 1)
		const reason = "out of stock: tea (2 wanted, 1 available)"
		if got := steps(t, s, 1, "reserve", "reserve"); got[0] != reason || got[1] != reason {
			t.Errorf("reserve, twice = %q; want %q", got, reason)
		}
		set(t, s, "tea", 10)
		if got := steps(t, s, 1, "reserve", "ship", "release"); got[0] != reason || got[1] != "not reserved" {
			t.Errorf("reserve again after more has come = %q; want %q", got, reason)
		}
		for sku, want := range map[string]int64{"tea": 10, "honey": 5} {
			if l, err := s.level(t.Context(), sku); err != nil || l.Available != want || l.Reserved != 0 {
				t.Errorf("%s = %+v, %v; want %d, none reserved", sku, l, err, want)
			}
		}
		if ok, reason, err := s.reserve(t.Context(), 2, []item{{"gold", 1}}); ok || reason != "unknown sku gold" || err != nil {
			t.Errorf("reserve gold = %v, %q, %v; want it refused as unknown", ok, reason, err)
		}
	})
}

// TestReserveConcurrently: of orders that want more than there is, exactly as
// many succeed as the stock suffices for, and each counts once.
func TestReserveConcurrently(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, quiet}
		set(t, s, "tea", 10)
		set(t, s, "honey", 10)
		var mu sync.Mutex
		reserved := make(map[int64]int)
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				order := int64(1 + i%16) // each order twice
				items := []item{{"honey", 1}, {"tea", 2}}
				ok, _, err := s.reserve(t.Context(), order, items)
				if err != nil {
					t.Errorf("reserve for order %d: %v", order, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if ok {
					reserved[order]++
				}
			})
		}
		wg.Wait()
		if len(reserved) != 5 {
			t.Errorf("orders that got 2 of 10: %v; want 5", reserved)
		}
		for order, n := range reserved {
			if n != 2 {
				t.Errorf("order %d was told yes %d of 2 times", order, n)
			}
		}
		if got := stock(t, s); got != "0/10" {
			t.Errorf("tea = %s; want 0/10", got)
		}
	})
}

func TestSet(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		var published []level
		s := &store{db, func(_ context.Context, _ *sql.Tx, l level) error {
			published = append(published, l)
			return nil
		}}
		price := int64(250)
		for _, test := range []struct {
			sku   string
			price *int64
			want  level
		}{
			{"milk", nil, level{"milk", 7, 0, 1000}},
			{"milk", &price, level{"milk", 7, 0, 250}},
			{"milk", nil, level{"milk", 7, 0, 250}},
			{"bread", &price, level{"bread", 7, 0, 250}},
			{"tea", nil, level{"tea", 7, 0, 900}},
		} {
			if got, err := s.set(t.Context(), test.sku, 7, test.price); err != nil || got != test.want {
				t.Errorf("set %s = %+v, %v; want %+v", test.sku, got, err, test.want)
			}
			if got, err := s.level(t.Context(), test.sku); err != nil || got != test.want {
				t.Errorf("level of %s = %+v, %v; want %+v", test.sku, got, err, test.want)
			}
		}
		if len(published) != 5 || published[4].SKU != "tea" {
			t.Errorf("published %+v; want each of 5 changes", published)
		}
		if err := s.stockDemo(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		if err := s.stockDemo(t.Context(), 200); err != nil {
			t.Fatal(err)
		}
		for sku, want := range map[string]int64{"tea": 7, "coffee": 100, "honey": 100} {
			if l, err := s.level(t.Context(), sku); err != nil || l.Available != want {
				t.Errorf("%s after the demo data = %+v, %v; want %d: only what never was in stock is filled", sku, l, err, want)
			}
		}
		var unknown *unknownSKUError
		if _, err := s.level(t.Context(), "gold"); !errors.As(err, &unknown) || unknown.sku != "gold" {
			t.Errorf("level of gold: %v; want that it is unknown", err)
		}
	})
}

// TestPublishIsPartOfTheChange: what cannot be published has not happened.
func TestPublishIsPartOfTheChange(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, quiet}
		set(t, s, "tea", 10)
		set(t, s, "honey", 10)
		full := errors.New("outbox is full")
		s.publish = func(_ context.Context, _ *sql.Tx, l level) error {
			if l.SKU == "tea" {
				return full
			}
			return nil
		}
		if _, _, err := s.reserve(t.Context(), 1, []item{{"honey", 1}, {"tea", 2}}); !errors.Is(err, full) {
			t.Errorf("reserve = %v; want the publisher's error", err)
		}
		s.publish = quiet
		if got := stock(t, s); got != "10/0" {
			t.Errorf("tea = %s; want 10/0", got)
		}
		if got := steps(t, s, 1, "reserve"); got[0] != "reserved" {
			t.Errorf("reserve once it can be published = %q; want reserved", got[0])
		}
	})
}

func set(t *testing.T, s *store, sku string, available int64) {
	t.Helper()
	if _, err := s.set(t.Context(), sku, available, nil); err != nil {
		t.Fatal(err)
	}
}
