package transport

import (
	"slices"
	"time"
)

const (
	forgetAfter = 10 * time.Minute // a target that is not called for so long
	forgetEvery = time.Minute      // how often it is looked for them

	// When there are more targets than manyTargets, external ones are forgotten sooner: a caller of
	// webhooks may call each host once.
	manyTargets = 1000
	forgetSoon  = 10 * time.Second
	forgetPause = time.Second
)

// forget drops targets that are no longer called. Their next call starts from scratch.
func (t *Transport) forget() {
	t.mu.Lock()
	var gone []*target
	if !t.closed {
		gone = t.unused()
		if len(t.byName) > 0 {
			t.sweeper.Reset(forgetEvery)
		} else {
			t.sweeper = nil
		}
	}
	t.mu.Unlock()
	for _, tg := range gone {
		tg.end()
	}
}

// unused removes and returns targets that are no longer called. t.mu must be held; call their end
// without it. A call that has just looked one of them up goes on with it.
func (t *Transport) unused() (gone []*target) {
	now := t.now()
	many := len(t.byName) > manyTargets
	t.swept = now
	for name, tg := range t.byName {
		idle := now - time.Duration(tg.used.Load())
		soon := many && !tg.isService() && idle > forgetSoon && tg.breaker.state(now) == Closed
		if (idle > forgetAfter || soon) && !tg.busy() {
			gone = append(gone, tg)
			delete(t.byName, name)
			for _, host := range tg.hosts {
				t.targets.Delete(host)
			}
		}
	}
	return gone
}

// busy reports whether there are calls in progress; probes count too.
func (t *target) busy() bool {
	return slices.ContainsFunc(t.instances(), func(in *instance) bool { return in.inFlight.Load() > 0 })
}

// end stops the watch of the registry and the probes, and closes connections and metrics. Calls in
// progress go on: the last one of an instance closes its connection.
func (t *target) end() {
	t.cancel()
	for _, in := range t.instances() {
		in.leave()
	}
	t.metrics.leave()
}
