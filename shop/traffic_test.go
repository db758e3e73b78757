package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// traffic is orders that customers place one after another. A customer who gets no
// order, whatever the reason, asks again under the same key.
type traffic struct {
	site *site
	stop chan struct{}
	end  func() // stops the traffic; no customer is left without an answer
	done sync.WaitGroup

	mu       sync.Mutex
	accepted int
	refused  []answer // status 0: no answer at all
}

const (
	customersAtOnce = 3
	pause           = 500 * time.Millisecond // between what a customer asks for
	enough          = 900                    // orders for one user, whose mails fit on a page
)

// traffic begins with orders for a new sku; it goes on until end is called.
func (s *site) traffic(t *testing.T, sku string) *traffic {
	t.Helper()
	s.stockUp(t, sku, 100_000)
	tr := &traffic{site: s, stop: make(chan struct{})}
	tr.end = sync.OnceFunc(func() {
		close(tr.stop)
		tr.done.Wait()
	})
	t.Cleanup(tr.end)
	for i := range customersAtOnce {
		user := s.as(t).signUp(fmt.Sprintf("%s-%d", sku, i))
		if _, err := s.as(t).as(user).credential(); err != nil { // logs in, or what an outage refuses may be a login
			t.Fatal(err)
		}
		tr.done.Go(func() { tr.buy(t, user, sku) })
	}
	return tr
}

// buy places order after order for user.
func (tr *traffic) buy(t *testing.T, user int64, sku string) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := range enough { // which take more than seven minutes
		for !tr.place(t, user, sku, fmt.Sprintf("%s-%d-%d", sku, user, n)) {
			<-tick.C
		}
		select {
		case <-tick.C:
		case <-tr.stop:
			return
		}
	}
}

// place asks for an order once and reports whether it was accepted. It gives up when
// the test has failed.
func (tr *traffic) place(t *testing.T, user int64, sku, key string) bool {
	c := tr.site.as(t).as(user)
	a, err := c.try(http.MethodPost, "gateway", "/v1/orders", orderBody(user, sku, 1), "Idempotency-Key: "+key)
	if err != nil {
		a = answer{body: err.Error()}
	}
	var o orderView
	ok := a.status == http.StatusCreated
	if ok {
		if err := json.Unmarshal([]byte(a.body), &o); err != nil {
			t.Errorf("order accepted with %s: %v", a.body, err)
		}
		tr.site.note(entry{o.ID, user, sku, 1, o.TotalCents, "confirmed"})
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if ok {
		tr.accepted++
	} else {
		tr.refused = append(tr.refused, a)
	}
	return ok || t.Failed()
}

// counts returns how many orders were accepted so far and what else was answered.
func (tr *traffic) counts() (accepted int, refused []answer) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.accepted, slices.Clone(tr.refused)
}

// more waits until n more orders were accepted.
func (tr *traffic) more(t *testing.T, n int) {
	t.Helper()
	before, _ := tr.counts()
	eventually(t, func() string {
		now, refused := tr.counts()
		if now < before+n {
			return fmt.Sprintf("%d of %d orders were accepted; refused: %d, the last with %v", now-before, n, len(refused), refused[max(0, len(refused)-1):])
		}
		return ""
	})
}
