package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// A load is orders, each with some reads beside it, that customers begin at a fixed rate, whatever
// comes of them. Customers take turns, and so do the doors that they come through.
type load struct {
	loadOptions
	site  *site
	doors []door
	users []int64
	skus  []string

	stop chan struct{}
	turn atomic.Uint64 // among the tokens
	done sync.WaitGroup

	mu     sync.Mutex
	calls  int
	took   []time.Duration
	failed []failedCall
	again  []int // orders that were not accepted
}

// manySKUs are so many that orders seldom wait for the row of another's.
const manySKUs = 40

// loadOptions say what a load is made of.
type loadOptions struct {
	rate   int      // orders a second
	users  int      // that order; each has room for as many orders as a page has
	reads  []string // paths
	each   int      // reads beside an order
	name   string   // what names of users and skus begin with; default "load-". A site has one load of a name
	tokens []string // credentials of those who call, in turn; nil: users for their orders, the operator for reads
}

// A door is a way to the gateways.
type door struct {
	name   string
	client *http.Client
	// gateway is the host of the next call.
	gateway func() string
}

// beginLoad has users sign up and begins to order.
func (s *site) beginLoad(t *testing.T, opts loadOptions, doors ...door) *load {
	t.Helper()
	l := &load{loadOptions: opts, site: s, doors: doors, stop: make(chan struct{})}
	l.name = cmp.Or(l.name, "load-")
	for i := range manySKUs {
		l.skus = append(l.skus, fmt.Sprint(l.name, i))
		s.stockUp(t, l.skus[i], 100_000)
	}
	for i := range opts.users {
		user := s.as(t).signUp(fmt.Sprint(l.name, i))
		if _, err := l.credential(t, user); err != nil { // logs in
			t.Fatal(err)
		}
		l.users = append(l.users, user)
	}
	if what := l.order(t, doors[0], -1); what != "" { // user 1 has an order, a payment and mails
		t.Fatalf("the first order was refused: %s", what)
	}
	s.ended(t, s.entries())
	l.done.Go(func() { l.run(t) })
	t.Cleanup(l.halt)
	return l
}

// run begins an order and its reads at each tick. Ticks that came late are caught up with, those of a quarter
// of a second at most: what a load that stood still for longer began in one moment would be refused.
func (l *load) run(t *testing.T) {
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(l.rate))
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-tick.C:
		case <-l.stop:
			return
		}
		due := int(time.Since(began).Seconds() * float64(l.rate))
		if left := due - n - max(1, l.rate/4); left > 0 {
			began = began.Add(time.Duration(left) * time.Second / time.Duration(l.rate))
			due -= left
		}
		for ; n < due; n++ {
			d, i := l.doors[n%len(l.doors)], n
			l.done.Go(func() { l.count("order", d, i, func() string { return l.order(t, d, i) }) })
			for i := range l.each {
				l.done.Go(func() { l.read(t, l.doors[i%len(l.doors)], l.reads[(n*l.each+i)%len(l.reads)]) })
			}
		}
	}
}

// read GETs path.
func (l *load) read(t *testing.T, d door, path string) {
	l.count("GET "+path, d, -1, func() string {
		status, body, err := l.call(t, d, 0, http.MethodGet, path, "")
		if err != nil || status != http.StatusOK {
			return fmt.Sprintf("%d %s %v", status, body, err)
		}
		return ""
	})
}

// count makes a call, which says what went wrong.
func (l *load) count(what string, d door, order int, call func() string) {
	began := time.Now()
	problem := call()
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	l.took = append(l.took, took)
	if problem == "" {
		return
	}
	l.failed = append(l.failed, failedCall{began, fmt.Sprintf("%s by %s after %v: %s", what, d.name, took.Round(time.Millisecond), problem)})
	if order >= 0 {
		l.again = append(l.again, order)
	}
}

// order places the n-th order and says what went wrong.
func (l *load) order(t *testing.T, d door, n int) (problem string) {
	user, sku := l.users[max(n, 0)%len(l.users)], l.skus[max(n, 0)%len(l.skus)]
	status, body, err := l.call(t, d, user, http.MethodPost, "/v1/orders", orderBody(user, sku, 1), "Idempotency-Key", fmt.Sprint(l.name, n))
	var o orderView
	if err == nil && status == http.StatusCreated {
		err = json.Unmarshal([]byte(body), &o)
	}
	if err != nil || status != http.StatusCreated {
		return fmt.Sprintf("%d %s %v", status, body, err)
	}
	l.site.note(entry{o.ID, user, sku, 1, o.TotalCents, "confirmed"})
	return ""
}

// credential is the header of the next call, as user or as the operator.
func (l *load) credential(t *testing.T, user int64) (string, error) {
	if len(l.tokens) > 0 {
		return "Authorization: Bearer " + l.tokens[l.turn.Add(1)%uint64(len(l.tokens))], nil
	}
	return l.site.as(t).as(user).credential()
}

// allReads reads from all services; user 1 has an order, a payment and mails.
func allReads() []string {
	return []string{"/v1/stock/load-0", "/v1/users/1", "/v1/orders/1", "/v1/payments/1", "/v1/mails/1", "/v1/sales"}
}

// callTime is more than any call may take.
const callTime = 30 * time.Second

// call makes a call as user, or 0 for the operator. header has a name, then its value.
func (l *load) call(t *testing.T, d door, user int64, method, path, body string, header ...string) (status int, answer string, err error) {
	credential, err := l.credential(t, user)
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.gateway()+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	name, value, _ := strings.Cut(credential, ": ")
	req.Header.Set(name, value)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// halt stops the load once all calls are answered.
func (l *load) halt() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
}

// end stops the load, has those orders accepted that were not, so that the ledger is complete, and
// returns how many calls there were and which of them have failed.
func (l *load) end(t *testing.T) (calls int, failed []failedCall) {
	t.Helper()
	l.halt()
	for _, n := range l.again {
		eventually(t, func() string { return l.order(t, l.doors[0], n) })
	}
	slices.Sort(l.took)
	at := func(q float64) time.Duration { return l.took[int(float64(len(l.took)-1)*q)].Round(time.Millisecond) }
	t.Logf("%d calls at %d orders a second, %d failed; p50 %v, p99 %v, longest %v", l.calls, l.rate, len(l.failed), at(0.5), at(0.99), at(1))
	return l.calls, l.failed
}

// A mark is a moment of a load.
type mark struct {
	at    time.Time
	calls int
	fails int
}

// mark is this moment.
func (l *load) mark() mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return mark{time.Now(), l.calls, len(l.failed)}
}

// since returns how many calls ended since m, and which of them have failed.
func (l *load) since(m mark) (calls int, failed []failedCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls - m.calls, slices.Clone(l.failed[m.fails:])
}

// unharmed calls f, beside which no call may fail. Beside the tests of other packages the machine may
// stand still for seconds; so if calls do fail, it calls again, and f once more: a defect comes again.
func (l *load) unharmed(t *testing.T, f, again func()) {
	t.Helper()
	for last := range 2 {
		from := l.mark()
		f()
		calls, failed := l.since(from)
		if len(failed) == 0 && calls > 0 {
			return
		}
		text := fmt.Sprintf("%d of %d calls failed, such as\n%s", len(failed), calls, some(failed, from.at))
		if last == 1 {
			t.Error(text)
			return
		}
		t.Log(text)
		again()
	}
}

// some shows the first of failed calls.
func some(failed []failedCall, began time.Time) string {
	var what []string
	for _, c := range failed[:min(10, len(failed))] {
		what = append(what, c.began.Sub(began).Round(time.Millisecond).String()+" "+c.what)
	}
	return strings.Join(what, "\n")
}

// byTransport is the door of a service that finds the gateways by discovery, as customers does.
func (s *site) byTransport(t *testing.T) door {
	t.Helper()
	var registry string
	if s.name == realShape {
		registry = s.servers[servers.Consul].URL()
	} else {
		registry = s.in.brokerURL(t)
	}
	d := door{name: "transport", gateway: func() string { return "gateway" }}
	caller := kaptar.Service{Name: "caller", Setup: func(app *kaptar.App) error {
		d.client = app.Client()
		return nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{
			Sources: config.Sources{Flags: map[string]string{"discovery_url": registry, "listen": "127.0.0.1:0", "retry.max": "-1"}},
			Log:     io.Discard,
			Ready:   func([]discovery.Instance) { close(ready) },
		}, caller)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the caller: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("the caller ended: %v", err)
	}
	return d
}

// probeEvery is how often a load balancer asks a gateway whether it is ready, and probeKeeps how long
// it goes by the answer: for less than the drain_delay of a gateway that stops, also when this process
// was kept from asking again.
const (
	probeEvery = 100 * time.Millisecond
	probeKeeps = 400 * time.Millisecond
)

// A probed is what a load balancer knows of a gateway.
type probed struct {
	began time.Time
	ready bool
}

// byBalancer is the door of a client behind a load balancer that takes turns among the gateways that
// say that they are ready. It repeats nothing, but what net/http does: a request over a connection
// that turns out to be closed.
func byBalancer(t *testing.T, gateways []string) door {
	t.Helper()
	known := make([]atomic.Pointer[probed], len(gateways))
	probe := &http.Client{Timeout: time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	var probes sync.WaitGroup
	t.Cleanup(func() { cancel(); probes.Wait() })
	for i, address := range gateways {
		known[i].Store(new(probed))
		probes.Go(func() {
			tick := time.NewTicker(probeEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				began := time.Now()
				resp, err := probe.Get("http://" + address + "/readyz")
				known[i].Store(&probed{began, err == nil && resp.StatusCode == http.StatusOK})
				if err == nil {
					_ = resp.Body.Close()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	pool := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(pool.CloseIdleConnections)
	ready := func(i uint64) bool {
		tick := time.NewTicker(probeEvery / 10)
		defer tick.Stop()
		for ; time.Since(known[i].Load().began) > probeKeeps && ctx.Err() == nil; <-tick.C {
		}
		return known[i].Load().ready
	}
	var turn atomic.Uint64
	return door{name: "balancer", client: &http.Client{Transport: pool}, gateway: func() string {
		for range gateways {
			if i := turn.Add(1) % uint64(len(gateways)); ready(i) {
				return gateways[i]
			}
		}
		return gateways[0]
	}}
}
