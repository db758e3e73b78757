package analysis

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What is simulated: 30 intervals with 800 calls of the canary each, 4 minutes at 100 calls a second,
// after one of stable alone.
const (
	simulations = 10000
	intervals   = 30
	canaryCalls = 800
)

// shares of the calls that the canary has.
var shares = [3]float64{0.05, 0.25, 0.5}

// A scenario is one row of the table.
type scenario struct {
	name                      string
	base, plus                float64                                    // errors of both, and of the canary on top
	latency                   func(slower float64) func(float64) float64 // nil: errors alone
	slower                    float64                                    // factor on the canary's latencies
	vary                      []float64                                  // factors on errors and latency, in turn
	own                       bool                                       // vary strikes each version by itself, by chance
	calls                     float64                                    // 0: canaryCalls
	looks                     int                                        // 0: intervals
	mostAborted, mostPromoted float64                                    // in per cent, asserted
	mostCalls                 uint64                                     // asserted, at a share of 5 %, median until abort
}

// outcome is what one method did with one scenario and share.
type outcome struct {
	aborted, promoted     int
	abortedAt, promotedAt []uint64
}

func (o *outcome) note(phase Phase, calls uint64) {
	if phase == Failed {
		o.aborted++
		o.abortedAt = append(o.abortedAt, calls)
		return
	}
	o.promoted++
	o.promotedAt = append(o.promotedAt, calls)
}

// newRivals have the limits that somebody would write down: 2 % of errors, and stable's p95 + 20 %.
func newRivals(sc scenario) (map[string]*thresholds, map[string]*mannWhitney) {
	argo := map[string]*thresholds{"errors": {limit: 0.02}}
	kayenta := map[string]*mannWhitney{"errors": {}}
	if sc.latency != nil {
		argo["latency"], kayenta["latency"] = &thresholds{limit: 1.2 * inverse(sc.latency(1), 0.95)}, &mannWhitney{}
	}
	return argo, kayenta
}

// per is a share of all simulations in per cent.
func per(n int) float64 { return 100 * float64(n) / simulations }

func median(list []uint64) uint64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// source draws one version of a scenario.
type source struct {
	errors    []errorStream
	latencies []*latencyStream
}

func (sc scenario) source(calls, plus, slower float64) (s source) {
	vary := sc.vary
	if vary == nil {
		vary = []float64{1}
	}
	for _, f := range vary {
		s.errors = append(s.errors, newErrors(calls, sc.base*f+plus))
		if sc.latency != nil {
			s.latencies = append(s.latencies, newLatencies(calls, sc.latency(slower*f), inverse(sc.latency(slices.Min(vary)), 0.88),
				inverse(sc.latency(slices.Max(vary)*1.2), 0.99)))
		}
	}
	return s
}

func (s source) draw(r *rand.PCG, phase int, into map[string]Observation) {
	into["errors"] = s.errors[phase].draw(r)
	if s.latencies != nil {
		into["latency"] = s.latencies[phase].draw(r)
	}
}

// run simulates, and returns what this package, thresholds and a Mann-Whitney
// window do.
func (sc scenario) run(t *testing.T, share float64) (all [3]outcome) {
	calls := sc.calls
	if calls == 0 {
		calls = canaryCalls
	}
	canary, stable := sc.source(calls, sc.plus, sc.slower), sc.source(calls*(1-share)/share, 0, 1)
	warm := sc.source(max(2000, calls*(1-share)/share), 0, 1)
	metrics := []Metric{{Name: "errors"}}
	if sc.latency != nil {
		metrics = Defaults()
	}
	h := fnv.New64()
	fmt.Fprint(h, sc.name, share)
	c, s := map[string]Observation{}, map[string]Observation{}
	for i := range simulations {
		r := rand.NewPCG(h.Sum64(), uint64(i))
		test, err := New(metrics, nil)
		if err != nil {
			t.Fatal(err)
		}
		warm.draw(r, 0, s)
		if err := test.Add(nil, s); err != nil {
			t.Fatal(err)
		}
		argo, kayenta := newRivals(sc)
		var done [2]bool
		good := false
		used := uint64(0)
		for look := range max(sc.looks, intervals) {
			pc, ps := look%len(canary.errors), look%len(canary.errors)
			if sc.own {
				pc, ps = int(r.Uint64()>>1)%len(canary.errors), int(r.Uint64()>>1)%len(canary.errors)
			}
			canary.draw(r, pc, c)
			stable.draw(r, ps, s)
			used += c["errors"].Count
			if !done[0] {
				if err := test.Add(c, s); err != nil {
					t.Fatal(err)
				}
				phase := test.whole()
				if phase == Failed || phase == Successful && !good {
					all[0].note(phase, used)
					good = phase == Successful
				}
				// Whether an equal version is aborted is looked at to the end.
				done[0] = phase == Failed || good && sc.mostAborted == 0
			}
			for m := range argo {
				if !done[1] && argo[m].add(c[m]) {
					done[1] = true
					all[1].note(Failed, used)
				}
				kayenta[m].add(c[m], s[m])
			}
		}
		if !done[1] {
			all[1].note(Successful, used)
		}
		high := Successful
		for _, w := range kayenta {
			if w.high() {
				high = Failed
			}
		}
		all[2].note(high, used)
	}
	return all
}

// scenarios are the rows of the table.
func scenarios() []scenario {
	day := []float64{1, 1.3, 1.6, 1.8, 1.6, 1.3, 1, 0.7, 0.5, 0.7}
	tenth := []float64{0.9, 0.95, 1, 1.05, 1.1}
	usual := func(slower float64) func(float64) float64 { return lognormal(0.02, 0.7, slower) }
	latencies := []func(float64) func(float64) float64{usual, heavy, bimodal}
	list := make([]scenario, 0, 20)
	for i, latency := range []string{"lognormal", "heavy-tailed", "bimodal"} {
		base := []float64{0.001, 0.01, 0.05}[i]
		list = append(list,
			scenario{name: fmt.Sprintf("equal, %g %% errors, %s latency", 100*base, latency), base: base, latency: latencies[i], slower: 1, mostAborted: 1, mostPromoted: 100},
			scenario{name: fmt.Sprintf("%g %% errors and 1 point more", 100*base), base: base, plus: 0.01, mostPromoted: 1},
			scenario{name: fmt.Sprintf("%g %% errors and 10 points more", 100*base), base: base, plus: 0.1, mostPromoted: 1, mostCalls: 100, calls: 5, looks: 100},
			scenario{name: fmt.Sprintf("+20 %% p95, %s latency", latency), base: base, latency: latencies[i], slower: 1.2, mostPromoted: 1})
	}
	return append(list,
		scenario{name: "twice the p95, lognormal latency", base: 0.01, latency: usual, slower: 2, mostPromoted: 1},
		scenario{name: "equal, both vary with the time of day", base: 0.01, latency: usual, slower: 1, vary: day, mostAborted: 1, mostPromoted: 100},
		scenario{name: "both vary, 1 point more", base: 0.01, plus: 0.01, vary: day, mostPromoted: 1},
		scenario{name: "both vary, +20 % p95", base: 0.01, latency: usual, slower: 1.2, vary: day, mostPromoted: 1},
		scenario{name: "equal, each varies by 10 % alone", base: 0.01, latency: usual, slower: 1, vary: tenth, own: true, mostAborted: 100, mostPromoted: 100},
		scenario{name: "equal, each varies by half alone", base: 0.01, latency: usual, slower: 1, vary: day, own: true, mostAborted: 100, mostPromoted: 100})
}

var writeReleases = flag.Bool("write-releases", false, "write the table of docs/releases.md from what was simulated")

// TestSimulations holds the promises of docs/releases.md, and the page to what was simulated.
func TestSimulations(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("10,000 simulations of each scenario and share take a minute of CPU")
	}
	list := scenarios()
	results := make([][3][3]outcome, len(list)) // by scenario, share and method
	t.Run("all", func(t *testing.T) {
		for i, sc := range list {
			for j, share := range shares {
				t.Run(fmt.Sprintf("%s/%g", sc.name, share), func(t *testing.T) {
					t.Parallel()
					results[i][j] = sc.run(t, share)
					sc.check(t, share, results[i][j][0])
				})
			}
		}
	})
	for _, row := range results {
		for _, cell := range row {
			if cell[0].aborted+cell[2].aborted+cell[2].promoted == 0 {
				return // -run chose some
			}
		}
	}
	compareTable(t, table(list, results))
}

func (sc scenario) check(t *testing.T, share float64, got outcome) {
	if per(got.aborted) > sc.mostAborted && sc.mostAborted > 0 {
		t.Errorf("%.2f %% aborted, want %g %% at most", per(got.aborted), sc.mostAborted)
	}
	if per(got.promoted) > sc.mostPromoted {
		t.Errorf("%.2f %% promoted, want %g %% at most", per(got.promoted), sc.mostPromoted)
	}
	if sc.mostPromoted == 100 && sc.mostAborted == 1 && got.promoted < simulations*9/10 {
		t.Errorf("%.2f %% promoted of an equal version, want 90 %% at least", per(got.promoted))
	}
	if sc.mostCalls > 0 && share == shares[0] && (median(got.abortedAt) > sc.mostCalls || got.aborted < simulations/2) {
		t.Errorf("aborted %.2f %% after %d calls of the canary, want half after %d", per(got.aborted), median(got.abortedAt), sc.mostCalls)
	}
}

// table writes a row for each scenario, with a number for each share.
func table(list []scenario, results [][3][3]outcome) string {
	var b strings.Builder
	b.WriteString("| canary | aborted, % | promoted, % | calls of the canary until then | thresholds: aborted, % | Mann-Whitney: aborted, % |\n|---|--:|--:|--:|--:|--:|\n")
	for i, sc := range list {
		cells := func(f func(o [3]outcome) string) string {
			return f(results[i][0]) + " / " + f(results[i][1]) + " / " + f(results[i][2])
		}
		number := func(n int) string { return strconv.FormatFloat(math.Round(100*per(n))/100, 'f', -1, 64) }
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", sc.name,
			cells(func(o [3]outcome) string { return number(o[0].aborted) }),
			cells(func(o [3]outcome) string { return number(o[0].promoted) }),
			cells(func(o [3]outcome) string {
				if sc.slower > 1 || sc.plus > 0 {
					return strconv.FormatUint(median(o[0].abortedAt), 10)
				}
				return strconv.FormatUint(median(o[0].promotedAt), 10)
			}),
			cells(func(o [3]outcome) string { return number(o[1].aborted) }),
			cells(func(o [3]outcome) string { return number(o[2].aborted) }))
	}
	return b.String()
}

// compareTable compares the page with the table, or writes it there.
func compareTable(t *testing.T, want string) {
	const page, begin, end = "../../docs/releases.md", "<!-- simulations -->\n", "<!-- /simulations -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	got, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no table between %q and %q", page, begin, end)
	}
	if *writeReleases {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	// Elsewhere a multiplication and an addition may be rounded once instead of twice.
	if got != want && runtime.GOARCH == "amd64" {
		t.Errorf("%s has another table than what the seeds give; go test ./rollout/analysis -run TestSimulations -write-releases writes\n%s", page, want)
	}
}
