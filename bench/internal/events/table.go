package events

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/kaptar/kaptar/bench/internal/command"
)

// Measure is [Drain] or [Writers].
type Measure = func(ctx context.Context, on *Servers, list []*Stack, durable bool, s Settings) ([]Series, error)

// A Title is what a table says of itself, and kaptar's goals: what it must be times the best of the
// others in the same round, on a broker that is not durable and on one that is; 0 is none.
type Title struct {
	Title, Text string
	Goals       [2]float64
}

// DrainTitle is what the table of [Drain] says.
func DrainTitle() Title {
	return Title{"Drain", "A backlog in the outbox until the last effect is committed. × is against the better of Watermill's rows in the same round.", [2]float64{2.5, 8}}
}

// WritersTitle is what the table of [Writers] says.
func WritersTitle() Title {
	return Title{"16 writers at full speed", "Writers that wait for nothing but their commits, until the last effect is committed. × as above.", [2]float64{}}
}

// Table writes what was measured without (of) and with (durable) a durable broker.
func Table(w io.Writer, title Title, of, durable []Series) {
	fmt.Fprintf(w, "\n### %s\n\n%s\n\n| stack | events/s, default fsync | × | CPU, µs | of PostgreSQL, µs | events/s, fsync of each message | × | CPU, µs | of PostgreSQL, µs |\n"+
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|\n", title.Title, title.Text)
	for i := range of {
		fmt.Fprintf(w, "| %s |", of[i].Stack.Name)
		for j, list := range [][]Series{of, durable} {
			middle, least, most := command.Spread(list[i].Rate)
			self, _, _ := command.Spread(list[i].Self)
			server, _, _ := command.Spread(list[i].Server)
			fmt.Fprintf(w, " %.0f (%.0f to %.0f) | %s | %s | %s |", middle, least, most, times(list, i, title.Goals[j]), whole(self), whole(server))
		}
		fmt.Fprintln(w)
	}
}

// times says how series i compares with the best of the others, and whether it missed its goal.
func times(list []Series, i int, goal float64) string {
	if !list[i].Stack.Ours {
		return ""
	}
	var ratios []float64
	for round, rate := range list[i].Rate {
		best := 0.0
		for _, other := range list {
			if !other.Stack.Ours {
				best = max(best, other.Rate[round])
			}
		}
		ratios = append(ratios, rate/best)
	}
	middle, least, most := command.Spread(ratios)
	if math.IsInf(middle, 0) {
		return "" // without others
	}
	text := fmt.Sprintf("**%.2f** (%.2f to %.2f)", middle, least, most)
	if goal > 0 {
		text += fmt.Sprintf(", goal %g", goal)
		if middle < goal {
			text += " (missed)"
		}
	}
	return text
}

// LatencyTable writes the latencies of all stacks and rates. × says how much later the best of the
// others is, for which the goal is 4.
func LatencyTable(w io.Writer, all []Series) {
	fmt.Fprintf(w, "\n### Latency\n\nFrom the return of the commit to the beginning of the handler, in ms, default fsync. "+
		"× is how many times the p50 of Watermill's best is.\n\n| stack | events/s | p50 | × | p99 |\n|---|--:|--:|--:|--:|\n")
	for _, s := range all {
		p50 := quantile(s.Late, 0.5)
		fmt.Fprintf(w, "| %s | %.0f | %.2f | %s | %.1f |\n", s.Stack.Name, 1/s.Every.Seconds(), p50, later(all, s, p50), quantile(s.Late, 0.99))
	}
}

func later(all []Series, s Series, p50 float64) string {
	best := math.Inf(1)
	for _, other := range all {
		if !other.Stack.Ours && other.Every == s.Every {
			best = min(best, quantile(other.Late, 0.5))
		}
	}
	if !s.Stack.Ours || math.IsInf(best, 1) {
		return ""
	}
	text := fmt.Sprintf("**%.1f**, goal 4", best/p50)
	if best/p50 < 4 {
		text += " (missed)"
	}
	return text
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

// whole writes v, and nothing for NaN.
func whole(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.0f", v)
}

func rate(n int64, took time.Duration) float64 { return float64(n) / took.Seconds() }
