package calls

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// TestRatios: what counts is each round by itself. Here the machine is half as fast in the second
// round, and one side is missing in the third and fourth.
func TestRatios(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	got := ratiosOf([]float64{80, 40, nan, 10, 90}, []float64{100, 50, 100, nan, 100})
	if want := (ratios{0.8, 0.8, 0.9}); got != want {
		t.Errorf("ratios = %+v, want %+v", got, want)
	}
	if got := ratiosOf([]float64{nan}, []float64{1}); !math.IsNaN(got.median) {
		t.Errorf("without a complete round: %+v, want NaN", got)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := new(histogram)
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Microsecond)
	}
	other := new(histogram)
	other.add(10 * time.Second)
	h.merge(other)
	for _, tc := range []struct {
		q    float64
		want float64
	}{{0.5, 501}, {0.99, 991}, {1, 10_000_000}} {
		if got := h.quantile(tc.q); got < tc.want*0.97 || got > tc.want*1.03 {
			t.Errorf("quantile %v = %v, want about %v", tc.q, got, tc.want)
		}
	}
	for d := time.Duration(1); d < 100*time.Second; d += d/3 + 1 {
		if got := middle(bucket(d)); got < d-d/16 || got > d+d/16 {
			t.Errorf("the bucket of %v has the middle %v", d, got)
		}
	}
	if got := new(histogram).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing = %v, want NaN", got)
	}
}

// TestForeign: the machine was busy for 1.5 s of the 2 s that two CPUs have in a second (user, nice,
// system, irq, softirq and steal), this process for 1.2 s of them.
func TestForeign(t *testing.T) {
	t.Parallel()
	const stat = "cpu  100 5 40 1000 70 1 2 2 50 50\ncpu0 1 1 1 1\n"
	ticks, ok := busyTicks(stat)
	if !ok || ticks != 150 {
		t.Fatalf("busyTicks = %d, %v, want 150", ticks, ok)
	}
	for _, bad := range []string{"", "intr 5 4", "cpu  1 2 x 4 5 6 7 8"} {
		if ticks, ok := busyTicks(bad); ok {
			t.Errorf("busyTicks(%q) = %d, want none", bad, ticks)
		}
	}
	begun := usage{at: time.Now(), known: true, cpus: 2}
	ended := usage{at: begun.at.Add(time.Second), known: true, cpus: 2, machine: 1500 * time.Millisecond, own: 1200 * time.Millisecond}
	if got := ended.foreign(begun); math.Abs(got-0.15) > 1e-9 {
		t.Errorf("foreign = %v, want 0.15", got)
	}
	ended.known = false
	if got := ended.foreign(begun); got != 0 {
		t.Errorf("foreign = %v where it is not known, want 0", got)
	}
}

// example are results of two stacks of each protocol.
func example() (results []Result) {
	for _, sampling := range []float64{0.01, 1} {
		for _, workers := range []int{1, 16} {
			for i, s := range Stacks() {
				ratio := 1 - 0.1*float64(i)*sampling
				results = append(results, Result{
					Stack: s, Workers: workers, Sampling: sampling, of: [figures]float64{cpuTime: 30, allocs: 74, size: 7.4},
					ratio: [figures]ratios{rate: {ratio, ratio - 0.1, ratio + 0.1}, cpuTime: {median: 1.1}}, p50: 30, p99: 1000,
				})
			}
		}
	}
	return results
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	Table(&out, example())
	for _, want := range []string{
		"\n### 1 % of the traces recorded\n", "\n### 100 % of the traces recorded\n",
		"| kaptar HTTP | 0.90 | **0.90** (0.80 to 1.00) | 30 | 1.10 | 74 | 7.4 | 30 | 1000 |\n",
		"| kaptar HTTP | 16 | allocations | ≤ 75 | 74.00 | ≤ 90 | 74.00 |\n",
		"| kaptar HTTP | 16 | × requests/s | ≥ 1.05 | 1.00 (missed) | ≥ 0.95 | 0.90 (missed) |\n",
		"| kaptar HTTP | 64 | × requests/s | ≥ 1.05 | – | ≥ 0.95 | – |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

// TestChart: the SVG is well-formed XML with two bars for each stack that is not a base, and as wide
// as it says.
func TestChart(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	results := example()
	results[1].ratio[rate].median = math.NaN() // kaptar HTTP with one caller is not in the chart
	if err := Chart(&out, results); err != nil {
		t.Fatal(err)
	}
	bars := 0
	for dec := xml.NewDecoder(&out); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 4 {
		t.Errorf("%d bars, want 2 of kaptar HTTP and 2 of kaptar gRPC", bars)
	}
}
