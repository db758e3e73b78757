package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

var soak = flag.Duration("soak", 30*time.Second, "how long TestSoak runs; the broker is away for the third of its five parts")

// A sample is what was measured at one time.
type sample struct {
	outbox, inbox, keys int64 // rows
	// heap is the size at which the next collection starts, twice what lives, by process; goroutines is
	// by process too.
	heap, goroutines map[string]float64
}

// parts is what a soak is divided into: two of calm, an outage, one in which it is made up for, and one
// of calm.
const parts = 5

// TestSoak: with the broker away in the middle of a steady load nothing is lost, and afterwards tables,
// heaps and goroutines are what they were before.
func TestSoak(t *testing.T) {
	t.Parallel()
	s := openSite(t, shape{open: (*site).sqliteNATS}, 1, nil)
	if forgets() { // within the run; the broker must not keep events for longer, and must keep them for an outage
		kept := (*soak * 3 / 10).String()
		s.settings["inbox.retention"] = kept
		s.settings["broker_url"] += "&max_age=" + kept
	}
	addresses := s.startMeasured()
	b := s.books(false)
	samples := [parts][]sample{}
	for part := range parts {
		if part == 2 {
			if err := s.engines[0].Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if part == parts-1 { // a busy machine takes longer to make up for it
			waittest.Until(t, "what waited to be sent", func() bool { return count(t, b.bank, `SELECT count(*) FROM kaptar_outbox`) < 100 })
		}
		for end := time.Now().Add(*soak / parts); time.Now().Before(end); {
			<-time.After(max(*soak/150, 200*time.Millisecond))
			samples[part] = append(samples[part], s.sample(b, addresses))
		}
		if part == 2 {
			if err := s.engines[0].Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("part %d of %d: %s", part+1, parts, describe(samples[part]))
	}
	s.halt()
	calm := time.Now()
	s.finish(b, liveness)
	r := s.record(b)
	s.bounds(r, samples)
	s.report(r, calm.Add(-*soak), calm)
}

// forgets reports whether the run is long enough for the inbox to forget events in it.
func forgets() bool { return *soak >= 5*time.Minute }

// startMeasured starts a writer and three consumers whose metrics can be read, and returns where.
func (s *site) startMeasured() (addresses map[string]string) {
	s.t.Helper()
	addresses = map[string]string{}
	for _, name := range []string{"writer", "ledger-0", "ledger-1", "ledger-2"} {
		addresses[name] = fmt.Sprint("127.0.0.1:", servertest.Port(s.t))
		if name == "writer" {
			s.run(name, "bank", map[string]string{"listen": addresses[name], "writers": "2"})
		} else {
			s.run(name, "ledger", map[string]string{"listen": addresses[name]})
		}
	}
	return addresses
}

// sample measures.
func (s *site) sample(b *books, addresses map[string]string) sample {
	s.t.Helper()
	m := sample{
		outbox: count(s.t, b.bank, `SELECT count(*) FROM kaptar_outbox`), inbox: count(s.t, b.ledger, `SELECT count(*) FROM kaptar_inbox`),
		keys: count(s.t, b.ledger, `SELECT count(*) FROM kaptar_inbox_keys`), heap: map[string]float64{}, goroutines: map[string]float64{},
	}
	for name, address := range addresses {
		heap, goroutines, err := measure(s.t.Context(), address)
		if err != nil {
			continue // it starts, or is busy; the medians are of the others
		}
		m.heap[name], m.goroutines[name] = heap, goroutines
	}
	return m
}

// measure reads a process's metrics.
func measure(ctx context.Context, address string) (heap, goroutines float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, 0, err
	}
	for name, into := range map[string]*float64{"go_memstats_next_gc_bytes": &heap, "go_goroutines": &goroutines} {
		family := families[name]
		if family == nil {
			return 0, 0, errors.New("no " + name)
		}
		*into = family.GetMetric()[0].GetGauge().GetValue()
	}
	return heap, goroutines, nil
}

// median is that of what of returns for each sample that has it.
func median(samples []sample, of func(sample) (float64, bool)) float64 {
	var all []float64
	for _, m := range samples {
		if v, ok := of(m); ok {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func outboxOf(m sample) (float64, bool) { return float64(m.outbox), true }

func largest(samples []sample, of func(sample) (float64, bool)) (n float64) {
	for _, m := range samples {
		v, _ := of(m)
		n = max(n, v)
	}
	return n
}

// describe shows medians.
func describe(samples []sample) string {
	last := samples[len(samples)-1]
	text := fmt.Sprintf("outbox %.0f rows, at most %.0f; marks of %d events and %d keys", median(samples, outboxOf), largest(samples, outboxOf), last.inbox, last.keys)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range last.heap {
			if !yield(name) {
				return
			}
		}
	}) {
		heap := median(samples, func(m sample) (float64, bool) { v, ok := m.heap[name]; return v, ok })
		goroutines := median(samples, func(m sample) (float64, bool) { v, ok := m.goroutines[name]; return v, ok })
		text += fmt.Sprintf("; %s: heap %.1f MB, %.0f goroutines", name, heap/1e6, goroutines)
	}
	return text
}

// bounds adds to r what has to be in the last part as it was in the second.
func (s *site) bounds(r *Record, samples [parts][]sample) {
	before, after := samples[1], samples[parts-1]
	bound := func(what string, now, limit float64) {
		r.Rows[what], r.Bounds[what] = int64(now), int64(limit)
	}
	bound("rows of the outbox, median", median(after, outboxOf), 2*median(before, outboxOf)+100)
	if forgets() {
		bound("marks of events, last", float64(after[len(after)-1].inbox), 1.5*float64(before[len(before)-1].inbox))
	}
	for _, m := range s.members {
		heap := func(m1 sample) (float64, bool) { v, ok := m1.heap[m.name]; return v, ok }
		goroutines := func(m1 sample) (float64, bool) { v, ok := m1.goroutines[m.name]; return v, ok }
		bound("heap of "+m.name, median(after, heap), 1.5*median(before, heap)+8e6)
		bound("goroutines of "+m.name, median(after, goroutines), 1.2*median(before, goroutines)+20)
	}
}
