package main

import (
	"flag"
	"testing"
	"time"
)

// rollingRate is the flag that says at which rate customers order.
var rollingRate = flag.Int("rolling", 20, "orders a second beside TestRollingRestart, in each of two shapes")

// rolling are the settings of all services: what a service that stops gives others to see it leave,
// which is five looks of the balancer; no repeats, which would hide the calls that come to a process
// that is gone; and time for calls while the machine is busy with other tests.
const rolling = "drain_delay: 500ms\nretry: {max: -1}\nlimit: {wait: 4s}\nrequest_timeout: 20s\n"

// TestRollingRestart restarts every process of every service, three of each, one after the other,
// while customers order: no call fails, no event is lost, and everything takes effect once. It is not
// parallel: the load has the machine to itself.
func TestRollingRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("go test -short leaves out what takes minutes")
	}
	for _, sh := range shapes() {
		if sh.name == oneProcess {
			continue // there is one
		}
		t.Run(sh.name, func(t *testing.T) {
			f := openFleet(t, sh, rolling)
			var gateways []string
			for n := range instancesEach {
				gateways = append(gateways, f.at("gateway", n))
			}
			l := f.beginLoad(t, loadOptions{rate: *rollingRate, users: 20 + *rollingRate, reads: allReads(), each: 4}, f.byTransport(t), byBalancer(t, gateways))
			began := time.Now()
			l.unharmed(t, func() { f.rollAll(t) }, func() {})
			l.end(t)
			f.audit(t)
			f.once(t)
			t.Logf("all was looked at after %v", time.Since(began).Round(time.Second))
			f.stop(t)
		})
	}
}

// rollAll restarts every process of every service.
func (f *fleet) rollAll(t *testing.T) {
	t.Helper()
	began := time.Now()
	for _, service := range served() {
		for n := range instancesEach {
			f.restart(t, service, n)
		}
	}
	t.Logf("%d processes were restarted in %v", instancesEach*len(served()), time.Since(began).Round(time.Second))
}

// once looks into the databases for effects that nobody shows: each order was charged and paid once.
func (f *fleet) once(t *testing.T) {
	t.Helper()
	want := len(f.entries())
	for service, query := range map[string]string{
		"bank":            "SELECT count(*), count(DISTINCT order_id) FROM charges WHERE status = 'approved'",
		"payment-service": "SELECT count(*), count(DISTINCT order_id) FROM payments WHERE status = 'captured'",
		"order-service":   "SELECT count(*), count(DISTINCT id) FROM orders WHERE status = 'confirmed'",
	} {
		var rows, orders int
		if err := f.openDB(t, service).QueryRowContext(t.Context(), query).Scan(&rows, &orders); err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		if rows != want || orders != want {
			t.Errorf("%s has %d rows of %d orders, want one each of %d", service, rows, orders, want)
		}
	}
}
