package payment

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		var published atomic.Int64
		s := &store{db, func(_ context.Context, _ *sql.Tx, p payment) error {
			published.Add(p.AmountCents)
			return nil
		}}
		ctx := t.Context()
		if _, err := s.get(ctx, 1); !errors.Is(err, errNoPayment) {
			t.Errorf("get of no payment: %v; want errNoPayment", err)
		}
		first := payment{OrderID: 1, UserID: 2, AmountCents: 1800, Status: pending}
		for _, p := range []payment{first, {OrderID: 1, UserID: 3, AmountCents: 5, Status: refunded}} {
			if got, err := s.begin(ctx, p); err != nil || got != first {
				t.Errorf("begin %+v = %+v, %v; want the first one", p, got, err)
			}
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if got, err := s.finish(ctx, first, pending, captured, ""); err != nil || got.Status != captured {
					t.Errorf("finish = %+v, %v; want captured", got, err)
				}
			})
		}
		wg.Wait()
		if got := published.Load(); got != 1800 {
			t.Errorf("published %d cents; want 1800, once", got)
		}
		if got, err := s.finish(ctx, first, pending, declined, "late"); err != nil || got.Status != captured || got.Reason != "" {
			t.Errorf("a late answer made it %+v, %v; want it captured still", got, err)
		}
		if got, err := s.finish(ctx, first, captured, refunded, ""); err != nil || got.Status != refunded {
			t.Errorf("finish = %+v, %v; want refunded", got, err)
		}
		if got, err := s.get(ctx, 1); err != nil || got != (payment{1, 2, 1800, refunded, ""}) {
			t.Errorf("get = %+v, %v; want it refunded", got, err)
		}
	})
}

// TestCapturedIsPublished: what cannot be published is not captured.
func TestCapturedIsPublished(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		full := errors.New("outbox is full")
		s := &store{db, func(context.Context, *sql.Tx, payment) error { return full }}
		p, err := s.begin(t.Context(), payment{OrderID: 1, UserID: 2, AmountCents: 1800, Status: pending})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.finish(t.Context(), p, pending, captured, ""); !errors.Is(err, full) {
			t.Errorf("finish = %v; want the publisher's error", err)
		}
		if got, err := s.get(t.Context(), 1); err != nil || got.Status != pending {
			t.Errorf("get = %+v, %v; want it pending", got, err)
		}
	})
}
