package rollout

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/transport"
)

// A meter measures the versions of one release, interval by interval. It is not for concurrent use.
type meter struct {
	client   *http.Client
	resolver discovery.Resolver
	note     func(ctx context.Context, err error) // gets the results of calls to discovery

	mu    sync.Mutex
	lists map[string][]discovery.Instance // by service, once discovery has answered

	last   map[string]*total // by instance, of the interval before; nil before the first
	listed map[string]bool   // instances that were listed then
}

// A total is what an instance has counted since it started.
type total struct {
	start float64                        // as the process says; 0 if it does not
	of    map[string]map[string]*numbers // by version and metric
}

// The bounds of a scrape: time for one, and how many at once.
const (
	maxScrapeTime = 5 * time.Second
	scrapesAtOnce = 16
)

// follow keeps lists of the instances of these services until ctx ends.
func (m *meter) follow(ctx context.Context, services []string) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	m.lists = map[string][]discovery.Instance{}
	for _, service := range services {
		all.Go(func() {
			var wait steady.Backoff
			for {
				err := m.resolver.Watch(ctx, service, func(list []discovery.Instance) {
					m.note(ctx, nil)
					wait.Reset()
					m.mu.Lock()
					defer m.mu.Unlock()
					m.lists[service] = list
				})
				if ctx.Err() != nil {
					return
				}
				m.note(ctx, err)
				steady.Sleep(ctx, wait.Next())
			}
		})
	}
	return all
}

// observe measures the instances of both versions and of the callers, and returns what was added
// since the last call.
func (m *meter) observe(ctx context.Context, r Release, callers []string) Observed {
	own, others, known := m.instances(r.Service, callers)
	if !known {
		return Observed{Missing: "discovery has not answered yet"}
	}
	o := Observed{Instances: map[string]int{}}
	own = slices.DeleteFunc(own, func(in discovery.Instance) bool {
		o.Instances[in.Version]++
		return in.Version != r.Canary && in.Version != r.Stable
	})
	totals, reached, missing := m.scrapeAll(ctx, r, own, others)
	sums := map[string]map[string]*numbers{r.Canary: {}, r.Stable: {}}
	for id, now := range totals {
		before := m.last[id]
		for version, metrics := range now.of {
			for metric, n := range metrics {
				sum := sums[version][metric]
				if sum == nil {
					sum = &numbers{hist: buckets{}}
					sums[version][metric] = sum
				}
				switch {
				case before != nil && before.start == now.start && before.of[version][metric] != nil:
					n = n.since(before.of[version][metric])
				case before == nil && m.listed[id]: // it could not be reached last time, so the growth is unknown
					n = &numbers{level: n.level, levels: n.levels}
				}
				sum.plus(n)
			}
		}
	}
	first := m.last == nil
	m.last, m.listed = totals, map[string]bool{}
	for _, in := range append(own, others...) {
		m.listed[in.ID] = true
	}
	o.Missing = missing
	if first {
		return o
	}
	o.Canary = observations(sums[r.Canary])
	if reached[r.Stable] {
		o.Stable = observations(sums[r.Stable])
	}
	return o
}

// instances returns the instances of the service and of its callers, and whether discovery knows.
func (m *meter) instances(service string, callers []string) (own, others []discovery.Instance, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, known := m.lists[service]
	for _, caller := range callers {
		if caller != service {
			others = append(others, m.lists[caller]...)
		}
	}
	return slices.Clone(list), others, known
}

// scrapeAll scrapes all instances concurrently. It returns the totals of those that answered by id,
// their versions, and the error of one that did not.
func (m *meter) scrapeAll(ctx context.Context, r Release, own, others []discovery.Instance) (
	totals map[string]*total, reached map[string]bool, missing string,
) {
	mine := r.sources()
	byVersion := map[string][]source{r.Canary: r.callerSources(r.Canary), r.Stable: r.callerSources(r.Stable)}
	keep := names(mine, byVersion[r.Stable])
	totals, reached = map[string]*total{}, map[string]bool{}
	ctx, cancel := context.WithTimeout(ctx, min(maxScrapeTime, time.Duration(r.Plan.Analysis.Interval)*4/5))
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	room := make(chan struct{}, scrapesAtOnce)
	match := matcher()
	for i, in := range append(slices.Clip(own), others...) {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			s, err := m.scrape(ctx, in, keep)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				missing = fmt.Sprintf("/metrics of %s: %v", in.ID, err)
			case i < len(own):
				reached[in.Version] = true
				totals[in.ID] = &total{s.start, map[string]map[string]*numbers{in.Version: s.totals(mine, match)}}
			default:
				t := &total{s.start, map[string]map[string]*numbers{}}
				for version, sources := range byVersion {
					t.of[version] = s.totals(sources, match)
				}
				totals[in.ID] = t
			}
		})
	}
	all.Wait()
	return totals, reached, missing
}

func (m *meter) scrape(ctx context.Context, in discovery.Instance, keep map[string]bool) (*scrape, error) {
	req, err := http.NewRequestWithContext(transport.WithInstance(ctx, in.ID), http.MethodGet, "http://"+in.Service+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	// Native histograms, whose buckets are fine enough to compare, are not in the text.
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim))+",text/plain;version=0.0.4;q=0.5")
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d; see its setting admin_from", resp.StatusCode)
	}
	return read(resp.Header, resp.Body, keep)
}
