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
	nan := math.NaN()
	return Result{Ratio: ratios{nan, nan, nan}, CPU: nan, CPURatio: nan, Allocs: nan, Bytes: nan}
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
		of := find(results, r.Stack.Name, n, r.Sampling).Ratio
		switch {
		case r.Stack.Name == r.Stack.Base:
			fmt.Fprint(w, " 1 |")
		case n == r.Workers:
			fmt.Fprintf(w, " **%s** (%s to %s) |", number(of.median, 2), number(of.least, 2), number(of.most, 2))
		default:
			fmt.Fprintf(w, " %s |", number(of.median, 2))
		}
	}
	fmt.Fprintf(w, " %s | %s | %s | %s | %s | %s |\n", number(r.CPU, 0), number(r.CPURatio, 2), number(r.Allocs, 0),
		number(r.Bytes/1000, 1), number(float64(r.P50.Nanoseconds())/1000, 0), number(float64(r.P99.Nanoseconds())/1000, 0))
}

// A goal bounds one figure of a stack.
type goal struct {
	what     string
	stack    string
	sampling float64
	workers  int
	of       func(Result) float64
	least    bool // want is a lower bound
	want     float64
}

func goals() (list []goal) {
	rate := func(r Result) float64 { return r.Ratio.median }
	cpu := func(r Result) float64 { return r.CPURatio }
	allocs := func(r Result) float64 { return r.Allocs }
	size := func(r Result) float64 { return r.Bytes / 1000 }
	for i, sampling := range []float64{0.01, 1} {
		pick := func(a, b float64) float64 { return []float64{a, b}[i] }
		list = append(list,
			goal{"requests/s", KaptarHTTP, sampling, 1, rate, true, 0.85},
			goal{"requests/s", KaptarHTTP, sampling, 16, rate, true, pick(1.05, 0.95)},
			goal{"requests/s", KaptarHTTP, sampling, 64, rate, true, pick(1.05, 0.95)},
			goal{"CPU", KaptarHTTP, sampling, 16, cpu, false, pick(0.97, 1.10)},
			goal{"allocations", KaptarHTTP, sampling, 16, allocs, false, pick(75, 90)},
			goal{"kB", KaptarHTTP, sampling, 16, size, false, pick(7.5, 11)},
			goal{"requests/s", KaptarGRPC, sampling, 16, rate, true, pick(0.90, 0.80)},
			goal{"requests/s", KaptarGRPC, sampling, 64, rate, true, pick(0.90, 0.80)},
			goal{"requests/s", KaptarHTTPHere, sampling, 16, rate, true, 6},
			goal{"requests/s", KaptarGRPCHere, sampling, 16, rate, true, 6},
		)
	}
	return list
}

func goalTable(w io.Writer, results []Result) {
	fmt.Fprint(w, "\n### Goals\n\n| stack | sampling | at | what | goal | measured | |\n|---|--:|--:|---|--:|--:|---|\n")
	for _, g := range goals() {
		got := g.of(find(results, g.stack, g.workers, g.sampling))
		sign, met := "≤", got <= g.want
		if g.least {
			sign, met = "≥", got >= g.want
		}
		says := map[bool]string{true: "met", false: "missed"}[met]
		if math.IsNaN(got) {
			says = "not measured"
		}
		fmt.Fprintf(w, "| %s | %g %% | %d | %s | %s %g | %s | %s |\n", g.stack, 100*g.sampling, g.workers, g.what, sign, g.want, number(got, 2), says)
	}
}

// Replace puts text between the marks of a document, which stay: lines with <!-- name --> and
// <!-- end of name -->.
func Replace(document, name, text string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	head, rest, ok := strings.Cut(document, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("calls: the document has no %q followed by %q", strings.TrimSpace(begin), end)
	}
	return head + begin + strings.Trim(text, "\n") + "\n" + end + tail, nil
}
