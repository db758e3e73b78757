package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A ledger is what the tests know that must have come of a shop: every order that
// was accepted, and how it has to end.
type ledger struct {
	mu     sync.Mutex
	orders []entry
	stock  map[string]int64 // by sku: put in stock
	// events that a test made up, of orders that there are not
	strayOrders, strayCents int64
}

// An entry is one accepted order.
type entry struct {
	id, user int64
	sku      string
	quantity int
	cents    int64
	want     string // its status in the end
}

// price is what a piece of any sku of the tests costs.
const price = 700

// stockUp puts n pieces of a new sku in stock.
func (s *site) stockUp(t *testing.T, sku string, n int64) {
	t.Helper()
	s.as(t).want(http.StatusOK, http.MethodPut, "/v1/stock/"+sku, fmt.Sprintf(`{"available":%d,"price_cents":%d}`, n, price))
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	if s.stock == nil {
		s.stock = make(map[string]int64)
	}
	s.stock[sku] = n
}

// order places an order that has to end as want says.
func (s *site) order(t *testing.T, user int64, sku string, quantity int, want string) orderView {
	t.Helper()
	a := s.as(t).as(user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(user, sku, quantity))
	return s.accepted(t, a, user, sku, quantity, want)
}

// accepted notes the order that a confirms.
func (s *site) accepted(t *testing.T, a answer, user int64, sku string, quantity int, want string) orderView {
	t.Helper()
	var o orderView
	a.into(t, &o)
	s.note(entry{o.ID, user, sku, quantity, o.TotalCents, want})
	return o
}

func (s *site) note(e entry) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	s.ledger.orders = append(s.ledger.orders, e)
}

// stray notes an event of a confirmed order that a test has made up.
func (s *site) stray(cents int64) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	s.strayOrders++
	s.strayCents += cents
}

func (s *site) entries() []entry {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return slices.Clone(s.ledger.orders)
}

// audit compares everything that the shop says of its orders with the ledger: each
// has ended as it must, was charged once or not at all, has exactly one mail about
// its end, counts once in the sales, and has taken its pieces from the stock. It
// may be called when no test places orders.
func (s *site) audit(t *testing.T) {
	t.Helper()
	s.ended(t, s.entries())
	s.handedOver(t)
	for _, check := range []func(client, []entry) string{s.checkCharges, s.checkMails, s.checkSales, s.checkStock} {
		eventually(t, func() string { return check(s.as(t), s.entries()) })
	}
	s.handedOver(t)
	for _, check := range []func(client, []entry) string{s.checkMails, s.checkSales} { // still: what is too much would stay
		eventually(t, func() string { return check(s.as(t), s.entries()) })
	}
}

// ended waits until orders have ended as they must.
func (s *site) ended(t *testing.T, orders []entry) {
	t.Helper()
	byUser := make(map[int64][]entry)
	for _, e := range orders {
		byUser[e.user] = append(byUser[e.user], e)
	}
	for user, want := range byUser {
		eventually(t, func() string {
			got, problem := s.as(t).orders(user)
			if problem != "" {
				return problem
			}
			now := make(map[int64]orderView)
			for _, o := range got {
				now[o.ID] = o
			}
			for _, e := range want {
				if now[e.id].Status != e.want {
					return fmt.Sprintf("order %d of user %d is %+v, want %s", e.id, user, now[e.id], e.want)
				}
			}
			return ""
		})
	}
}

// backlog finds how many events of a service are not sent yet.
var backlog = regexp.MustCompile(`(?m)^outbox_backlog_rows\{service="([^"]+)"\} (\S+)$`)

// handedOver waits until every service has handed its events to the broker.
func (s *site) handedOver(t *testing.T) {
	t.Helper()
	for _, service := range serviceNames() {
		eventually(t, func() string {
			a, err := s.as(t).try(http.MethodGet, service, "/metrics", "")
			if err != nil {
				return err.Error()
			}
			for _, found := range backlog.FindAllStringSubmatch(a.body, -1) {
				if found[1] == service && found[2] != "0" {
					return fmt.Sprintf("%s has %s events not sent yet", service, found[2])
				}
			}
			return ""
		})
	}
}

// checkCharges: the bank was paid once for each confirmed order, and for no other.
func (s *site) checkCharges(c client, orders []entry) string {
	left := make(map[int64]entry)
	for _, e := range orders {
		if e.want == "confirmed" {
			left[e.id] = e
		}
	}
	n := int64(len(left))
	books := c.charges("?limit=1000")
	if books.Approved != n {
		return fmt.Sprintf("the bank has approved %d charges for %d confirmed orders", books.Approved, n)
	}
	asked := make(map[int64]bool)
	for _, charge := range books.Charges {
		if asked[charge.OrderID] {
			return fmt.Sprintf("the bank was asked to charge order %d under two keys", charge.OrderID)
		}
		if asked[charge.OrderID] = true; charge.Status != "approved" {
			continue
		}
		if e, ok := left[charge.OrderID]; !ok || e.cents != charge.AmountCents {
			return fmt.Sprintf("the bank was paid %d cents for order %d, which is confirmed with %d or was paid before", charge.AmountCents, charge.OrderID, e.cents)
		}
		delete(left, charge.OrderID)
	}
	return ""
}

// mailsOf returns the subjects of the mails to user.
func mailsOf(c client, user int64) (subjects []string, problem string) {
	var page struct {
		Mails []struct {
			Subject string `json:"subject"`
		} `json:"mails"`
	}
	problem = c.as(user).read(fmt.Sprintf("/v1/mails/%d?limit=1000", user), &page)
	for _, m := range page.Mails {
		subjects = append(subjects, m.Subject)
	}
	return subjects, problem
}

// checkMails: exactly one mail tells how each order ended, and one welcomes each user.
func (s *site) checkMails(c client, orders []entry) string {
	want := make(map[int64]map[string]int)
	for _, e := range orders {
		if want[e.user] == nil {
			want[e.user] = make(map[string]int)
		}
		want[e.user][fmt.Sprintf("Order %d is %s", e.id, e.want)] = 1
	}
	for user, subjects := range want {
		mails, problem := mailsOf(c, user)
		if problem != "" {
			return problem
		}
		got := make(map[string]int)
		for _, subject := range mails {
			if strings.HasPrefix(subject, "Welcome") {
				subject = "Welcome"
			}
			got[subject]++
		}
		subjects["Welcome"] = 1
		for subject, n := range subjects {
			if got[subject] != n {
				return fmt.Sprintf("user %d got %d mails %q, want %d", user, got[subject], subject, n)
			}
		}
	}
	return ""
}

// sales is analytics-service's read model.
type sales struct {
	Orders        int64 `json:"orders"`
	TotalCents    int64 `json:"total_cents"`
	CapturedCents int64 `json:"captured_cents"`
	Placed        int64 `json:"placed"`
	Cancelled     int64 `json:"cancelled"`
	BySKU         map[string]struct {
		Quantity int64 `json:"quantity"`
	} `json:"by_sku"`
}

// checkSales: the sales count each order once.
func (s *site) checkSales(c client, orders []entry) string {
	var got sales
	if problem := c.read("/v1/sales", &got); problem != "" {
		return problem
	}
	s.ledger.mu.Lock()
	want := sales{Orders: s.strayOrders, TotalCents: s.strayCents, Placed: int64(len(orders))}
	s.ledger.mu.Unlock()
	sold := make(map[string]int64)
	for _, e := range orders {
		if e.want == "cancelled" {
			want.Cancelled++
			continue
		}
		want.Orders++
		want.TotalCents += e.cents
		want.CapturedCents += e.cents
		sold[e.sku] += int64(e.quantity)
	}
	bySKU := got.BySKU
	if got.BySKU = nil; fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Sprintf("the sales are %+v, want %+v", got, want)
	}
	for sku, n := range sold {
		if bySKU[sku].Quantity != n {
			return fmt.Sprintf("the sales count %d of %s, want %d", bySKU[sku].Quantity, sku, n)
		}
	}
	return ""
}

// checkStock: what was sold is gone, and nothing is set aside any more.
func (s *site) checkStock(c client, orders []entry) string {
	s.ledger.mu.Lock()
	left := maps.Clone(s.stock)
	s.ledger.mu.Unlock()
	for _, e := range orders {
		if e.want == "confirmed" {
			left[e.sku] -= int64(e.quantity)
		}
	}
	for sku, n := range left {
		var level struct {
			Available int64 `json:"available"`
			Reserved  int64 `json:"reserved"`
		}
		if problem := c.read("/v1/stock/"+sku, &level); problem != "" {
			return problem
		}
		if level.Available != n || level.Reserved != 0 {
			return fmt.Sprintf("the stock of %s is %+v, want %d available", sku, level, n)
		}
	}
	return ""
}
