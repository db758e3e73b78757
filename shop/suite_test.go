package main

import (
	"testing"
)

// A scenario is something that the shop must do in every shape.
type scenario struct {
	name string
	run  func(t *testing.T, s *site)
	// alone: it disturbs the others, or they it.
	alone bool
	// not says by shape why it is not run there.
	not map[string]string
	// note says by shape what is different.
	note map[string]string
}

// scenarios are all of them, in the order in which they run; those that are not
// alone run first and at the same time.
func scenarios() []scenario {
	noServers := map[string]string{
		oneProcess: "needs no server beside itself",
		splitShape: "needs no server beside itself",
	}
	const again = " What a killed consumer had taken from the broker and not finished comes again after `ack_wait`, 30 s by default and 6 s in the suite"
	kills := map[string]string{
		oneProcess: "A kill takes down all services and the broker; they are started again together." + again + ".",
		splitShape: "The supervisor starts the service again; the broker lives in the supervisor and goes down with it." + again + ".",
		realShape:  "Somebody else has to start the service again." + again + ", with RabbitMQ at once.",
	}
	const handedBack = "The broker stops too, and forgets that events were handed back to it: those come after `ack_wait`, not at once."
	list := []scenario{
		{name: "sign up and log in", run: users},
		{name: "order confirmed, with mail and sales", run: confirmed},
		{name: "order for more than there is", run: outOfStock},
		{name: "metrics of every service", run: metrics},
		{name: "one trace through all services", run: traced},
		{name: "duplicate messages", run: duplicates},
		{name: "messages that nobody can handle", run: badMessages},
		{name: "events of programs without kaptar, good and hostile", run: foreignEvents},
		{name: "clients that do what they can to close a service", run: hostile, alone: true},
		{name: "order declined by the bank", run: declined, alone: true},
		{name: "bank outage", run: bankOutage, alone: true},
		{name: "kill -9 of each service under orders", run: killEach, alone: true, note: kills},
		{name: "kill -9 of consumers in the middle of events", run: killHandling, alone: true, note: kills},
		{name: "kill -9 of everything under orders", run: killEverything, alone: true, note: map[string]string{
			realShape: "The services; the servers are killed one at a time, below.",
		}},
		{name: "graceful restart under orders", run: restartEverything, alone: true, note: map[string]string{
			oneProcess: handedBack, splitShape: handedBack,
		}},
		{name: "late messages after a restart", run: lateMessages, alone: true},
	}
	for _, f := range outages() {
		list = append(list, scenario{name: f.name(), run: f.run, alone: true, not: noServers})
	}
	return list
}

// TestSystem runs every scenario in every shape, as the package comment of main and
// docs/parity.md have them.
func TestSystem(t *testing.T) {
	t.Parallel()
	results := newParity(t)
	t.Run("shapes", func(t *testing.T) {
		for _, sh := range shapes() {
			t.Run(sh.name, func(t *testing.T) {
				t.Parallel()
				runShape(t, sh, results)
			})
		}
	})
	results.check(t)
}

// runShape runs the scenarios in one shape.
func runShape(t *testing.T, sh *shape, results *parity) {
	spans, address := startCollector(t)
	s := openSite(t, sh, "otel:\n  exporter_otlp_endpoint: http://"+address+"\n")
	s.spans = spans
	t.Run("together", func(t *testing.T) {
		for _, sc := range scenarios() {
			if sc.alone || sc.not[sh.name] != "" {
				continue
			}
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				results.begin(t, sc, sh.name)
				sc.run(t, s)
			})
		}
	})
	s.audit(t)
	for _, sc := range scenarios() {
		if !sc.alone || sc.not[sh.name] != "" {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			results.begin(t, sc, sh.name)
			sc.run(t, s)
		})
	}
	s.stopAll(t)
	if names := spans.unmeasured(); len(names) > 0 {
		t.Errorf("no http_requests_total came from %v", names)
	}
}
