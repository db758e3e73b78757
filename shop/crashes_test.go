package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crashes is the flag that has TestCrashes crash every service, in the real shape too.
var crashes = flag.Int("crashes", 0, "how often TestCrashes kills and pauses each service; 0: two services, once each, in the split shape")

const (
	soon       = 2 * time.Second         // after a service is ready all calls that need it succeed
	everyOrder = 100 * time.Millisecond  // one order and one read
	quiet      = 1500 * time.Millisecond // without a failure: the crash is over
	watched    = 4 * time.Second         // how long after a service is ready its callers are watched at most
	stopped    = 3 * time.Second         // how long SIGSTOP lasts
)

// needs is what is read through the gateway from a service.
func needs() map[string]string {
	return map[string]string{
		"gateway": "/v1/stock/crashes", "user-service": "/v1/users/1", "order-service": "/v1/orders/1", "inventory-service": "/v1/stock/crashes",
		"payment-service": "/v1/payments/1", "notification-service": "/v1/mails/1", "analytics-service": "/v1/sales",
	}
}

// TestCrashes kills and pauses the only instance of services, under default settings and 10 orders
// a second: all calls through the gateway succeed soon after it is ready, through every layer.
func TestCrashes(t *testing.T) {
	t.Parallel()
	services := slices.Sorted(slices.Values([]string{"user-service", "order-service"}))
	if *crashes > 0 {
		services = nil
		for service := range needs() {
			services = append(services, service)
		}
		slices.Sort(services)
	}
	for _, sh := range shapes() {
		if sh.name == oneProcess || sh.name == realShape && *crashes == 0 {
			continue
		}
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			s := openSite(t, sh, "")
			b := s.buyers(t, 2+2*max(*crashes, 1))
			for _, service := range services {
				var killed, paused []time.Duration
				for range max(*crashes, 1) {
					killed = append(killed, b.recovery(t, service, func() { s.kill(t, s, service); s.revive(t, s, service) }))
					paused = append(paused, b.recovery(t, service, func() { s.pause(t, service) }))
				}
				t.Logf("%s: all calls succeed after kill -9 in %v, after SIGSTOP in %v", service, spread(killed), spread(paused))
				if worst := max(slices.Max(killed), slices.Max(paused)); worst > soon {
					t.Errorf("%s: calls failed until %v after it was ready, want %v", service, worst, soon)
				}
			}
			b.end(t)
			s.audit(t)
		})
	}
}

// spread shows the median and the worst of some times.
func spread(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("%v (worst %v of %d)", d[len(d)/2].Round(time.Millisecond), d[len(d)-1].Round(time.Millisecond), len(d))
}

// pause stops the process of a service for a while, as a machine does that swaps or migrates.
func (s *site) pause(t *testing.T, service string) {
	t.Helper()
	var pid int
	if p := s.proc(everything); p != nil {
		pid = p.ServicePID(service)
	} else {
		pid = s.proc(service).PID()
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("stop %s, process %d: %v", service, pid, err)
	}
	<-time.After(stopped)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatalf("continue %s, process %d: %v", service, pid, err)
	}
	s.ready(t, service)
}

// buyers order at a fixed rate, whatever the answers are.
type buyers struct {
	traffic
	users []int64
	stop  chan struct{}

	mu     sync.Mutex
	path   string // read beside each order
	failed []failedCall
	again  []int // orders that were not accepted
}

type failedCall struct {
	began time.Time
	what  string
}

func (s *site) buyers(t *testing.T, users int) *buyers {
	t.Helper()
	s.stockUp(t, "crashes", 100_000)
	b := &buyers{traffic: traffic{site: s}, stop: make(chan struct{})}
	for i := range users {
		b.users = append(b.users, s.as(t).signUp(fmt.Sprint("crashes-", i)))
	}
	if !b.place(t, b.users[0], "crashes", "first") { // user 1 has an order, a payment and mails
		t.Fatalf("the first order was refused: %v", b.refused)
	}
	s.ended(t, s.entries())
	b.done.Go(func() { b.run(t) })
	t.Cleanup(func() {
		select {
		case <-b.stop:
		default:
			close(b.stop)
		}
		b.done.Wait()
	})
	return b
}

// run begins an order and a read at each tick.
func (b *buyers) run(t *testing.T) {
	tick := time.NewTicker(everyOrder)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-b.stop:
			return
		}
		b.done.Go(func() {
			began := time.Now()
			if !b.order(t, n) {
				_, refused := b.counts()
				last := refused[len(refused)-1]
				b.note(failedCall{began, fmt.Sprintf("order: %d %s", last.status, last.body)}, n)
			}
		})
		b.mu.Lock()
		path := b.path
		b.mu.Unlock()
		if path == "" {
			continue
		}
		b.done.Go(func() {
			began := time.Now()
			a, err := b.site.as(t).try(http.MethodGet, "gateway", path, "")
			if err != nil || a.status != http.StatusOK {
				b.note(failedCall{began, fmt.Sprintf("GET %s: %d %s %v", path, a.status, a.body, err)}, -1)
			}
		})
	}
}

func (b *buyers) order(t *testing.T, n int) (accepted bool) {
	return b.place(t, b.users[n/enough%len(b.users)], "crashes", fmt.Sprint("crash-", n))
}

func (b *buyers) note(f failedCall, order int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = append(b.failed, f)
	if order >= 0 {
		b.again = append(b.again, order)
	}
}

// recovery is what after returns. Beside the tests of other packages, which is where the flag is not
// given, a time out of bounds is noted and measured once more: a defect comes again.
func (b *buyers) recovery(t *testing.T, service string, crash func()) time.Duration {
	t.Helper()
	took := b.after(t, service, crash)
	if took <= soon || *crashes > 0 {
		return took
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("unknown")
	}
	t.Logf("%s: calls failed until %v after it was ready, with the machine's load at %s", service, took, bytes.TrimSpace(load))
	return b.after(t, service, crash)
}

// after crashes a service and returns how long after its return calls began that failed.
func (b *buyers) after(t *testing.T, service string, crash func()) (last time.Duration) {
	t.Helper()
	b.mu.Lock()
	b.path = needs()[service]
	b.mu.Unlock()
	crash()
	ready, what := time.Now(), ""
	tick := time.NewTicker(everyOrder)
	defer tick.Stop()
	for now := ready; now.Sub(ready) < min(last+quiet, watched); now = <-tick.C {
		b.mu.Lock()
		for _, f := range b.failed {
			if since := f.began.Sub(ready); since > last {
				last, what = since, f.what
			}
		}
		b.failed = nil
		b.mu.Unlock()
	}
	if what != "" {
		t.Logf("%v after %s was ready: %s", last, service, what)
	}
	return last
}

// end stops the orders and has those accepted that were not, so that the ledger is complete.
func (b *buyers) end(t *testing.T) {
	t.Helper()
	close(b.stop)
	b.done.Wait()
	for _, n := range b.again {
		eventually(t, func() string {
			if !b.order(t, n) {
				return fmt.Sprintf("order %d is refused", n)
			}
			return ""
		})
	}
}
