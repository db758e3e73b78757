// Package customers simulates the shop's customers: they sign up, log in and
// place orders at the gateway. What is sold out they put in stock again, as a service of the shop.
package customers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

// settings of the simulator.
type settings struct {
	Traffic float64 `config:"traffic" default:"0" help:"orders a second that simulated customers place, up to 1000"`
}

// Validate refuses what cannot be meant.
func (s *settings) Validate() error {
	if s.Traffic < 0 || s.Traffic > 1000 || math.IsNaN(s.Traffic) {
		return fmt.Errorf("traffic %v: expected 0 to 1000 orders a second", s.Traffic)
	}
	return nil
}

// Service is the simulator on port 8091. Without the setting traffic it does nothing.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{Name: "customers", Version: "v1", Listen: ":8091", Settings: set, Setup: func(app *kaptar.App) error {
		if set.Traffic == 0 {
			return nil
		}
		if err := auth.Protect(app, nil, nil); err != nil { // which signs our calls
			return err
		}
		c := &simulator{app: app, rate: set.Traffic, name: "customer-" + strings.ToLower(rand.Text()[:8]), password: rand.Text()}
		app.Go("sign up", c.join)
		app.Go("order", c.run)
		app.Go("report", c.report)
		return nil
	}}
}

// A simulator places orders at a rate. It goes on through every failure.
type simulator struct {
	app            *kaptar.App
	rate           float64
	name, password string // of all customers, whose names have a number behind
	placed, failed atomic.Int64

	mu        sync.Mutex
	customers []*customer
}

// A customer is a user of the shop.
type customer struct {
	id   int64
	name string

	mu      sync.Mutex
	token   string
	expires time.Time
}

// maxCustomers are so many that a canary with 5 % of the users has some of them.
const maxCustomers = 100

const (
	atOnce      = 64   // orders on their way; more are not begun
	restockAt   = 50   // when fewer are available,
	restockTo   = 5000 // this many are put in stock
	reportEvery = 10 * time.Second
	expiresSoon = 10 * time.Second // a token that does is not used any more
)

// join signs up one customer a second, since each costs the hash of a password and later another.
func (c *simulator) join(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; n < maxCustomers; {
		if next, err := c.signUp(ctx, fmt.Sprintf("%s-%d", c.name, n)); err == nil {
			c.mu.Lock()
			c.customers = append(c.customers, next)
			c.mu.Unlock()
			n++
		} else if ctx.Err() == nil {
			c.app.Logger().WarnContext(ctx, "not signed up yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// anybody is one of the customers that there are, nil before the first.
func (c *simulator) anybody() *customer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.customers) == 0 {
		return nil
	}
	return c.customers[mathrand.IntN(len(c.customers))]
}

func (c *simulator) run(ctx context.Context) error {
	var orders sync.WaitGroup
	defer orders.Wait()
	tick := time.NewTicker(time.Duration(float64(time.Second) / c.rate))
	defer tick.Stop()
	slots := make(chan struct{}, atOnce)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		who := c.anybody()
		if who == nil {
			continue
		}
		select {
		case slots <- struct{}{}:
			orders.Go(func() {
				defer func() { <-slots }()
				c.once(ctx, n, who)
			})
		default:
			c.failed.Add(1) // the shop is too slow for this rate
		}
	}
}

// once places one order, or counts a failure.
func (c *simulator) once(ctx context.Context, n int, who *customer) {
	var err error
	if n%50 == 0 {
		err = c.restock(ctx)
	}
	if err == nil {
		err = c.order(ctx, who)
	}
	switch {
	case err == nil:
		c.placed.Add(1)
	case ctx.Err() == nil:
		c.failed.Add(1)
		c.app.Logger().DebugContext(ctx, "order not placed", "error", err)
	}
}

func (c *simulator) skus() []string { return []string{"tea", "coffee", "honey"} }

func (c *simulator) signUp(ctx context.Context, name string) (*customer, error) {
	body := map[string]string{"username": name, "email": name + "@example.com", "password": c.password}
	var user struct{ ID int64 }
	if err := c.call(ctx, http.MethodPost, "http://gateway/v1/users", nil, body, &user); err != nil {
		return nil, err
	}
	return &customer{id: user.ID, name: name}, nil
}

// bearer returns the customer's token, a new one when it is about to expire.
func (c *simulator) bearer(ctx context.Context, who *customer) (string, error) {
	who.mu.Lock()
	defer who.mu.Unlock()
	if time.Until(who.expires) > expiresSoon {
		return "Bearer " + who.token, nil
	}
	var login struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	body := map[string]string{"username": who.name, "password": c.password}
	if err := c.call(ctx, http.MethodPost, "http://gateway/v1/login", nil, body, &login); err != nil {
		return "", err
	}
	who.token, who.expires = login.Token, login.ExpiresAt
	return "Bearer " + who.token, nil
}

// restock keeps the shelves from running empty. It is the shop's own work, behind its gateway.
func (c *simulator) restock(ctx context.Context) error {
	for _, sku := range c.skus() {
		var stock struct{ Available int64 }
		url := "http://inventory-service/v1/stock/" + sku
		if err := c.call(ctx, http.MethodGet, url, nil, nil, &stock); err != nil {
			return err
		}
		if stock.Available >= restockAt {
			continue
		}
		if err := c.call(ctx, http.MethodPut, url, nil, map[string]int{"available": restockTo}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *simulator) order(ctx context.Context, who *customer) error {
	bearer, err := c.bearer(ctx, who)
	if err != nil {
		return err
	}
	sku := c.skus()[mathrand.IntN(len(c.skus()))]
	body := map[string]any{"user_id": who.id, "items": []map[string]any{{"sku": sku, "quantity": 1 + mathrand.IntN(3)}}}
	header := http.Header{"Authorization": {bearer}, "Idempotency-Key": {rand.Text()}}
	return c.call(ctx, http.MethodPost, "http://gateway/v1/orders", header, body, nil)
}

// call sends body as JSON and reads the answer into out.
func (c *simulator) call(ctx context.Context, method, url string, header http.Header, body, out any) error {
	status, answer, err := rest.Call(ctx, c.app.Client(), method, url, header, body)
	switch {
	case err != nil:
		return err
	case status >= 300:
		return fmt.Errorf("customers: %s %s: %d: %s", method, url, status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// report logs what came of the orders, as long as there is something to say.
func (c *simulator) report(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.app.Logger().InfoContext(ctx, "traffic", "placed", c.placed.Load(), "failed", c.failed.Load())
		}
	}
}
