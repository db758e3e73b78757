package kaptartest

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	seedEnv  = "KAPTAR_SEED"
	seedsEnv = "KAPTAR_SEEDS"
)

// A Simulation holds the options of [Simulate]. nil and the zero value are the defaults.
type Simulation struct {
	// Seeds is the number of runs, default 100; -short runs a tenth of them. The environment
	// variable KAPTAR_SEEDS overrides it.
	Seeds int
	// From is the first seed; default 1.
	From int
	// Faults says how often which fault strikes; default DefaultRates.
	Faults *Rates
	// Settings are settings of all services by dotted key, as in Options.
	Settings map[string]string
}

// Rates are probabilities from 0 to 1, each for one call.
type Rates struct {
	Crash     float64 // an instance is killed before or after a call of its database or broker
	Refuse    float64 // a publish fails and stores nothing
	Doubt     float64 // a publish fails although it has stored the event
	LoseAck   float64 // an acknowledgement does not reach the broker, which redelivers after its ack wait
	Lose      float64 // a delivery is lost; it comes again after the ack wait, behind later ones of its key
	Duplicate float64 // an event is delivered twice
	Delay     float64 // a publish or a delivery takes up to 10 s; deliveries of other keys overtake it
}

// DefaultRates are rates at which some twenty faults strike a system that handles a hundred events.
func DefaultRates() *Rates {
	return &Rates{Crash: 0.004, Refuse: 0.03, Doubt: 0.03, LoseAck: 0.03, Lose: 0.03, Duplicate: 0.03, Delay: 0.03}
}

// Simulate runs test once for each seed, on all cores. Each run is in a bubble of testing/synctest,
// in virtual time, with its own databases (SQLite) and broker (memory), and with faults. Which
// faults strike depends on the seed, the call, the event that it is for, and how often it was made,
// but not on the order in which goroutines run. After the first seed that fails no further ones are
// started, and the test's log lists the faults that struck and the command that repeats the seed:
//
//	KAPTAR_SEED=17 go test -run '^TestTransfers$' .
//
// test starts instances, lets time pass and looks at the databases; Calm ends the faults. When test
// returns, the instances are stopped gracefully. In a bubble time passes only while all its
// goroutines wait for something in it. So services have no ports, and neither they nor the test may
// use the network.
//
// Not simulated: loss of what the database or the broker has stored, wrong clocks, a network
// between services, and the order of goroutines. A seed therefore repeats its faults, and mostly
// its run.
func Simulate(t *testing.T, s *Simulation, test func(sim *Sim)) {
	t.Helper()
	if s == nil {
		s = new(Simulation)
	}
	first, seeds := cmp.Or(s.From, 1), cmp.Or(s.Seeds, 100)
	if testing.Short() {
		seeds = max(seeds/10, 1)
	}
	seeds = fromEnv(t, seedsEnv, seeds)
	if one := fromEnv(t, seedEnv, 0); one != 0 {
		first, seeds = one, 1
	}
	run := &simulation{Simulation: *s, test: test, templates: make(map[string][]byte)}
	run.next.Store(int64(first))
	for range min(seeds, runtime.GOMAXPROCS(0)) {
		t.Run("seeds", func(t *testing.T) {
			t.Parallel()
			for seed := run.take(); seed < first+seeds && !run.failed.Load(); seed = run.take() {
				run.seed(t, seed)
			}
		})
	}
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("kaptartest: %s=%s: expected a number from 1", name, text)
	}
	return n
}

// A simulation is what the seeds of one Simulate share.
type simulation struct {
	Simulation

	test   func(*Sim)
	next   atomic.Int64
	failed atomic.Bool

	mu        sync.Mutex
	templates map[string][]byte // migrated databases, by service
}

func (s *simulation) take() int { return int(s.next.Add(1) - 1) }

// seed runs one seed.
func (s *simulation) seed(t *testing.T, seed int) {
	t.Helper()
	root, _, _ := strings.Cut(t.Name(), "/")
	var faults []string
	ok := t.Run(strconv.Itoa(seed), func(t *testing.T) {
		dir, err := os.MkdirTemp("", "kaptartest-") //nolint:usetesting // that of t may have a '#', which no database can
		if err != nil {
			t.Fatalf("kaptartest: %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		synctest.Test(t, func(t *testing.T) {
			sim := newSim(t, s, seed, dir)
			defer func() {
				sim.stop()
				faults = sim.Faults()
			}()
			s.test(sim)
		})
	})
	if ok {
		return
	}
	s.failed.Store(true)
	t.Errorf("kaptartest: seed %d failed; run it again with\n\t%s=%[1]d go test -run '^%[3]s$' .\n%d faults struck, in this order:\n\t%s",
		seed, seedEnv, root, len(faults), strings.Join(faults, "\n\t"))
}

// ackWait is the broker's ack wait. It is longer than the interval at which consumers extend it,
// and shorter than usual, so that less time has to pass.
const ackWait = 12 * time.Second

// A Sim is one run. Its methods may be called concurrently, from the run's bubble.
type Sim struct {
	testing.TB

	seed    int
	rates   Rates
	all     *simulation
	dir     string
	broker  *broker
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup // instances, and what they have under way
	calm    atomic.Bool
	started atomic.Int64

	mu     sync.Mutex
	counts map[string]int
	faults []string
	stores map[string]*store // by service
}

func newSim(t *testing.T, s *simulation, seed int, dir string) *Sim {
	t.Helper()
	sim := &Sim{
		TB: t, seed: seed, rates: *cmp.Or(s.Faults, DefaultRates()), all: s, dir: dir, broker: newBroker(),
		counts: make(map[string]int), stores: make(map[string]*store),
	}
	sim.broker.inner.AckWait = ackWait
	sim.ctx, sim.cancel = context.WithCancel(context.Background())
	return sim
}

// Seed returns the seed of this run, for decisions of the test itself.
func (s *Sim) Seed() int { return s.seed }

// Faults returns the faults that have struck so far, in order.
func (s *Sim) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.faults...)
}

// Calm ends the faults: from now on none strikes.
func (s *Sim) Calm() { s.calm.Store(true) }

// maxStrikes is how often one call can be struck, so that retries succeed.
const maxStrikes = 3

// Strikes reports whether a fault strikes, with the probability rate. It depends on the seed and
// text alone, and can be true only for the first three calls with the same text. It is for faults
// of the test's own, such as a handler that fails; text names the fault and what it strikes.
func (s *Sim) Strikes(rate float64, text string) bool {
	if rate <= 0 || s.calm.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[text]++
	n := s.counts[text]
	if n > maxStrikes || float64(s.hash(text, n)>>11)/(1<<53) >= rate {
		return false
	}
	if n > 1 {
		text = fmt.Sprintf("%s (time %d)", text, n)
	}
	s.faults = append(s.faults, text)
	return true
}

// hash returns the same number for the same seed, text and n.
func (s *Sim) hash(text string, n int) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %d %s", s.seed, n, text) // it cannot fail
	x := h.Sum64()                                     // whose high bits differ too little: the finalizer of MurmurHash3
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// stop stops all instances gracefully.
func (s *Sim) stop() {
	s.Calm()
	s.cancel()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, store := range s.stores {
		for _, session := range store.idle {
			session.close()
		}
		_ = store.db.Close()
	}
	_ = s.broker.inner.Close(context.Background())
}
