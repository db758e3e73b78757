package calls

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A group is a part of the tables and of the chart.
type group struct{ protocol, title string }

func groups() []group {
	return []group{
		{HTTP, "HTTP, against " + BareHTTP},
		{GRPC, "gRPC, against " + BareGRPC},
		{InProcess, "in process, against kaptar's own calls over loopback"},
		{Guarded, "with package auth, against the same without"},
	}
}

// detail is the number of workers that has all columns: 16, or the most.
func detail(results []Result) int {
	most := 0
	for _, r := range results {
		if r.Workers == 16 {
			return 16
		}
		most = max(most, r.Workers)
	}
	return most
}

// values returns the distinct values of results in order of their appearance.
func values[T cmp.Ordered](results []Result, of func(Result) T) (list []T) {
	for _, r := range results {
		if !slices.Contains(list, of(r)) {
			list = append(list, of(r))
		}
	}
	return list
}

// find returns the result of a stack, or one whose figures are NaN.
func find(results []Result, stack string, workers int, sampling float64) Result {
	for _, r := range results {
		if r.Stack.Name == stack && r.Workers == workers && r.Sampling == sampling {
			return r
		}
	}
	missing := Result{}
	for i := range figures {
		missing.of[i], missing.ratio[i] = math.NaN(), ratiosOf(nil, nil)
	}
	return missing
}

// number writes v with some decimals; a figure that is missing is a dash.
func number(v float64, decimals int) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// Table writes the results as tables of Markdown, one for each sampling, and one of the goals.
func Table(w io.Writer, results []Result) {
	workers, full := values(results, func(r Result) int { return r.Workers }), detail(results)
	for _, sampling := range values(results, func(r Result) float64 { return r.Sampling }) {
		fmt.Fprintf(w, "\n### %g %% of the traces recorded\n\n| stack |", 100*sampling)
		for _, n := range workers {
			fmt.Fprintf(w, " × at %d |", n)
		}
		fmt.Fprintf(w, " CPU, µs | × | allocations | kB | p50, µs | p99, µs |\n|---|%s\n", strings.Repeat("--:|", len(workers)+6))
		for _, g := range groups() {
			heading := false
			for _, r := range results {
				if r.Stack.Protocol != g.protocol || r.Workers != full || r.Sampling != sampling {
					continue
				}
				if !heading {
					fmt.Fprintf(w, "| **%s** |%s\n", g.title, strings.Repeat(" |", len(workers)+6))
					heading = true
				}
				row(w, results, r, workers)
			}
		}
	}
	goalTable(w, results)
	fmt.Fprintf(w, "\nWhat is on:\n\n")
	for _, name := range values(results, func(r Result) string { return r.Stack.Name }) {
		i := slices.IndexFunc(results, func(r Result) bool { return r.Stack.Name == name })
		fmt.Fprintf(w, "- %s: %s\n", name, results[i].Stack.On)
	}
}

// row writes one stack: ratios for all numbers of workers, and all else of r.
func row(w io.Writer, results []Result, r Result, workers []int) {
	fmt.Fprintf(w, "| %s |", r.Stack.Name)
	for _, n := range workers {
		of := find(results, r.Stack.Name, n, r.Sampling).ratio[rate]
		switch {
		case r.Stack.Name == r.Stack.Base:
			fmt.Fprint(w, " 1 |")
		case n == r.Workers:
			fmt.Fprintf(w, " **%s** (%s to %s) |", number(of.median, 2), number(of.least, 2), number(of.most, 2))
		default:
			fmt.Fprintf(w, " %s |", number(of.median, 2))
		}
	}
	fmt.Fprintf(w, " %s | %s | %s | %s | %s | %s |\n", number(r.of[cpuTime], 0), number(r.ratio[cpuTime].median, 2),
		number(r.of[allocs], 0), number(r.of[size], 1), number(r.p50, 0), number(r.p99, 0))
}

// goalTable compares what was measured with the project's goals.
func goalTable(w io.Writer, results []Result) {
	fmt.Fprint(w, "\n### Goals\n\n| stack | at | what | goal at 1 % | measured | goal at 100 % | measured |\n|---|--:|---|--:|--:|--:|--:|\n")
	for _, g := range []struct {
		stack     string
		workers   int
		what      string
		figure    int
		absolute  bool // and an upper bound
		few, full float64
	}{
		{KaptarHTTP, 1, "× requests/s", rate, false, 0.85, 0.85},
		{KaptarHTTP, 16, "× requests/s", rate, false, 1.05, 0.95},
		{KaptarHTTP, 64, "× requests/s", rate, false, 1.05, 0.95},
		{KaptarHTTP, 16, "× CPU", cpuTime, false, 0.97, 1.10},
		{KaptarHTTP, 16, "allocations", allocs, true, 75, 90},
		{KaptarHTTP, 16, "kB", size, true, 7.5, 11},
		{KaptarGRPC, 16, "× requests/s", rate, false, 0.90, 0.80},
		{KaptarGRPC, 64, "× requests/s", rate, false, 0.90, 0.80},
		{GuardedHTTP, 16, "× CPU", cpuTime, false, 1.05, 1.05},
		{GuardedGRPC, 16, "× CPU", cpuTime, false, 1.05, 1.05},
		{KaptarHTTPHere, 16, "× requests/s", rate, false, 6, 6},
		{KaptarGRPCHere, 16, "× requests/s", rate, false, 6, 6},
	} {
		fmt.Fprintf(w, "| %s | %d | %s |", g.stack, g.workers, g.what)
		for _, at := range []struct{ sampling, want float64 }{{0.01, g.few}, {1, g.full}} {
			r := find(results, g.stack, g.workers, at.sampling)
			got, sign := r.ratio[g.figure].median, "≤"
			if g.absolute {
				got = r.of[g.figure]
			}
			met := got <= at.want
			if g.figure == rate {
				sign, met = "≥", got >= at.want
			}
			fmt.Fprintf(w, " %s %g | %s%s |", sign, at.want, number(got, 2), map[bool]string{true: "", false: " (missed)"}[met || math.IsNaN(got)])
		}
		fmt.Fprintln(w)
	}
}
