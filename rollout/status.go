package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/rollout/analysis"
)

func (c *command) statusCommand() *cobra.Command {
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use: "status SERVICE", Short: "Show the release of a service", Args: cli.Args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			store, _, err := c.open(ctx)
			if err != nil {
				return err
			}
			if follow && !asJSON {
				return c.watch(ctx, store, args[0])
			}
			r, _, err := load(ctx, store, args[0])
			if errors.Is(err, kv.ErrNotFound) {
				return c.unknown(ctx, store, args[0])
			}
			if err != nil {
				return err
			}
			c.code = r.exitCode()
			if asJSON {
				return c.json(r.shown())
			}
			fmt.Fprint(c.stdout, table(r, cli.Colours(c.stdout)))
			return nil
		},
	}
	cmd.Flags().BoolVar(&follow, "watch", false, "follow it until it is over, or paused")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for scripts")
	return cmd
}

func (c *command) listCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the releases of all services", Args: cli.Args,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, _, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			all, err := values(cmd.Context(), store, releasesPrefix)
			if err != nil {
				return err
			}
			releases := []shown{}
			var errs []error
			for _, text := range all {
				r, err := decode([]byte(text))
				if err != nil {
					errs = append(errs, err)
					continue
				}
				releases = append(releases, r.shown())
			}
			slices.SortFunc(releases, func(a, b shown) int { return cmp.Compare(a.Service, b.Service) })
			if asJSON {
				return errors.Join(append(errs, c.json(releases))...)
			}
			if len(all) == 0 {
				fmt.Fprintf(c.stdout, "no releases yet: %s rollout start SERVICE VERSION begins one\n", c.name)
			}
			for _, r := range releases {
				fmt.Fprintln(c.stdout, redact.Lines(r.line()))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for scripts")
	return cmd
}

func (c *command) json(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		fmt.Fprintf(c.stdout, "%s\n", text)
	}
	return err
}

// shown is a release as JSON for scripts, with weights and result instead of evidence.
type shown struct {
	Release

	Weights map[string]int   `json:"weights"`
	Result  *analysis.Result `json:"analysis,omitempty"`
}

func (r Release) shown() shown {
	s := shown{Release: r, Weights: r.Weights()}
	if r.Test != nil {
		result := r.Test.Result()
		for i := range result.Metrics { // JSON knows no infinity
			m := &result.Metrics[i]
			for _, v := range []*float64{&m.Canary, &m.Stable, &m.Limit, &m.Worse, &m.Within} {
				*v = min(*v, math.MaxFloat64)
			}
		}
		s.Result = &result
	}
	s.Test, s.Baseline = nil, nil
	return s
}

func (r Release) exitCode() int {
	switch r.Phase {
	case Degraded:
		return exitDegraded
	case Paused:
		return exitPaused
	}
	return 0
}

func (r Release) line() string {
	text := fmt.Sprintf("%s %s", r.Service, r.Phase)
	if !r.Done() {
		text += fmt.Sprintf(", step %d of %d", r.Step+1, len(r.Steps()))
	}
	weights := r.Weights()
	if r.Canary != "" {
		text += fmt.Sprintf(", %s %d %%", r.Canary, weights[r.Canary])
	}
	return text + fmt.Sprintf(", %s %d %%: %s", r.Stable, weights[r.Stable], r.Message)
}

// watch shows the release of a service at each change, until it is over or waits for somebody.
func (c *command) watch(ctx context.Context, store kv.Store, service string) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &screen{command: c, terminal: cli.IsTerminal(c.stdout)}
	silent := time.AfterFunc(silence, func() {
		fmt.Fprintln(c.stderr, "nothing has changed for a while: does a service run that calls rollout.Control, such as the gateway?")
	})
	defer silent.Stop()
	var last Release
	var bad error
	for watching.Err() == nil {
		err := store.Watch(watching, releasesPrefix+kv.Segment(service), func(list []kv.Entry) {
			i := slices.IndexFunc(list, func(e kv.Entry) bool { return e.Key == releasesPrefix+kv.Segment(service) })
			if i < 0 {
				bad = c.unknown(ctx, store, service)
				cancel()
				return
			}
			silent.Reset(silence)
			r, err := decode(list[i].Value)
			if err != nil {
				bad = err
				cancel()
				return
			}
			last = r
			s.show(r)
			if r.Done() || r.Phase == Paused {
				cancel()
			}
		})
		if watching.Err() == nil {
			fmt.Fprintf(c.stderr, "the store is away, trying again: %v\n", err)
			steady.Sleep(watching, time.Second)
		}
	}
	if bad != nil {
		return bad
	}
	c.code = last.exitCode()
	if ctx.Err() != nil && !last.Done() && last.Phase != Paused {
		fmt.Fprintf(c.stderr, "\nno longer watching; the release goes on: %[1]s rollout status %[2]s --watch looks again, "+
			"%[1]s rollout abort %[2]s takes it back\n", c.name, service)
		c.code = cli.Failed
		return nil
	}
	return apply(ctx, store, service) // so that they are written when this returns
}

// silence is the time without a change after which a watching user is told.
const silence = 45 * time.Second

// A screen shows a release: as a redrawn table on a terminal, else a line for each change.
type screen struct {
	*command

	terminal bool
	lines    int // of the table that stands there
	last     string
}

func (s *screen) show(r Release) {
	if !s.terminal {
		if line := redact.Lines(r.line()); line != s.last {
			s.last = line
			fmt.Fprintln(s.stdout, line)
			if r.Test != nil && (r.Done() || r.Phase == Paused) {
				fmt.Fprintln(s.stdout, redact.Lines(r.Test.Result().String()))
			}
		}
		return
	}
	text := table(r, cli.Colours(s.stdout))
	if s.lines > 0 {
		fmt.Fprintf(s.stdout, "\x1b[%dA\x1b[J", s.lines)
	}
	fmt.Fprint(s.stdout, text)
	s.lines = strings.Count(text, "\n")
}

func (p Phase) colour() string {
	return map[Phase]string{Progressing: "\x1b[36m", Paused: "\x1b[33m", Healthy: "\x1b[32m", Degraded: "\x1b[31m"}[p]
}

// table is a release with its steps and what was measured.
func table(r Release, colours bool) string {
	var b strings.Builder
	phase := string(r.Phase)
	if colours {
		phase = r.Phase.colour() + phase + "\x1b[0m"
	}
	b.WriteString(strings.Replace(redact.Visible(r.line(), ""), string(r.Phase), phase, 1) + "\n\n")
	for i, step := range r.Steps() {
		mark := " "
		switch {
		case i < r.Step:
			mark = "✓"
		case i == r.Step && r.Phase == Degraded:
			mark = "✗"
		case i == r.Step:
			mark = "●"
		}
		text := step.String()
		if i == r.Step && !r.Done() {
			text += fmt.Sprintf("   for %v", time.Duration(r.Waited).Round(time.Second))
		}
		fmt.Fprintf(&b, "  %s %s\n", mark, text)
	}
	if r.Test == nil {
		return b.String()
	}
	b.WriteString("\n")
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	canary, stable := cmp.Or(r.Canary, r.Stable), r.Stable
	if r.Canary == "" {
		stable = r.Previous
	}
	fmt.Fprintf(w, "  metric\t%s\t%s\tlimit\t\n", redact.Visible(canary, ""), redact.Visible(stable, ""))
	for _, m := range r.Test.Result().Metrics {
		value := func(v float64, n uint64) string {
			if n == 0 {
				return "-"
			}
			return fmt.Sprintf("%s of %d", number(m.Kind, v), n)
		}
		result := string(m.Phase)
		if m.Missing != "" && !r.Done() {
			result += ", needs " + m.Missing
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", redact.Visible(m.Name, ""),
			value(m.Canary, m.CanarySamples), value(m.Stable, m.StableSamples), number(m.Kind, m.Limit), result)
	}
	_ = w.Flush() // to memory
	return b.String()
}

// number is a value of a metric for people.
func number(kind analysis.Kind, v float64) string {
	switch {
	case v > 1e15:
		return "unbounded"
	case kind == analysis.Proportion:
		return fmt.Sprintf("%.2f %%", 100*v)
	case kind == analysis.Quantile:
		return time.Duration(v * float64(time.Second)).Round(10 * time.Microsecond).String()
	}
	return fmt.Sprintf("%.4g", v)
}

// String is the step as a plan has it.
func (s Step) String() string {
	switch {
	case s.SetWeight != nil:
		return fmt.Sprintf("setWeight %d", *s.SetWeight)
	case s.Pause != nil && s.Pause.Duration > 0:
		return "pause " + s.Pause.Duration.String()
	case s.Pause != nil:
		return "pause until promoted"
	}
	return "analysis"
}
