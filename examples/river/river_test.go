package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// A record has the numbers of orders that somebody was told of.
type record struct {
	mu  sync.Mutex
	ids []int64
}

func (r *record) add(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
}

func (r *record) sorted() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.ids))
}

// TestOneTransaction: the job and the event of an order come after its commit, once, and neither of
// them after a rollback.
func TestOneTransaction(t *testing.T) {
	t.Parallel()
	url := servertest.Database(t)
	var invoices, mails record
	order := service(func(_ context.Context, id int64) error {
		invoices.add(id)
		return nil
	})
	mail := kaptar.Service{Name: "mail-service", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, placed, func(_ context.Context, e messaging.Event[orderPlaced]) error {
			mails.add(e.Data.OrderID)
			return nil
		}, nil)
	}}
	system := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.order-service.database_url": url}}, order, mail)
	var want []int64
	for id := range int64(10) {
		path := fmt.Sprintf("/orders/%d?cents=900", id+1)
		want = append(want, id+1)
		if r := system.Do("POST", "order-service", path, ""); r.Status != http.StatusCreated {
			t.Fatalf("%s: %+v", path, r)
		}
		// The order again violates its primary key, after the job and the event were written.
		if r := system.Do("POST", "order-service", path, ""); r.Status != http.StatusInternalServerError {
			t.Fatalf("%s again: %+v", path, r)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !slices.Equal(invoices.sorted(), want) || !slices.Equal(mails.sorted(), want); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("invoices %v, mails %v, want %v of both", invoices.sorted(), mails.sorted(), want)
		}
	}
	db, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for table, want := range map[string]int{"orders": 10, "river_job": 10} {
		var rows int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows); err != nil || rows != want {
			t.Errorf("%s: %d rows, %v, want %d", table, rows, err, want)
		}
	}
}
