package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/bench/internal/command"
)

// An engine is a server with the two sides that use it.
type engine struct {
	name        string
	start       func(ctx context.Context) (url string, stop func(), err error)
	bare        func(ctx context.Context, url string) (client, error)
	params      string // of the driver's URL
	group       string // that the driver consumes in; "": a new one each time
	consumeOnly bool
	few         bool // events, as it is ten times slower than the others
	once        bool // a topic's backlog can be drained only once
}

func main() { command.Main(run) }

func run(ctx context.Context) error {
	all := engines()
	var known []string
	for _, e := range all {
		known = append(known, e.name)
	}
	var s settings
	flag.IntVar(&s.rounds, "rounds", 7, "measured rounds of each line")
	flag.DurationVar(&s.slice, "slice", 500*time.Millisecond, "time of each side in a round of publishing")
	flag.IntVar(&s.backlog, "backlog", 400_000, "events that a round of consuming drains; RabbitMQ and NATS have a tenth of it")
	flag.StringVar(&s.only, "only", "", "publish or consume")
	names := flag.String("engines", strings.Join(known, ","), "what to measure")
	flag.Parse()
	chosen := strings.Split(*names, ",")
	for _, name := range chosen {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no engine %q, want some of %s", name, strings.Join(known, ", "))
		}
	}
	for _, e := range all {
		if slices.Contains(chosen, e.name) {
			if err := measure(ctx, &e, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func measure(ctx context.Context, e *engine, s settings) error {
	url, stop, err := e.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	drv, err := openDriver(ctx, url+e.params, e.group)
	if err != nil {
		return err
	}
	defer drv.close()
	bare, err := e.bare(ctx, url)
	if err != nil {
		return err
	}
	defer bare.close()
	p := &pair{engine: e, settings: s, sides: []side{{"driver", drv}, {"bare", bare}}}
	if e.few {
		p.backlog /= 10
	}
	p.backlog -= p.backlog % (fillers * fillBatch)
	fmt.Fprintf(os.Stdout, "\n%-28s %21s %20s %17s\n", "", "messages a second", "ratio of rates", "client CPU, µs")
	fmt.Fprintf(os.Stdout, "%-28s %10s %10s %7s %12s %8s %8s\n", e.name, "driver", "bare", "median", "min-max", "driver", "bare")
	if s.only != "consume" && !e.consumeOnly {
		for _, senders := range []int{1, 16} {
			for _, batch := range []int{1, 16, 500} {
				l, err := p.publish(ctx, senders, batch)
				if err != nil {
					return err
				}
				l.print()
			}
		}
	}
	if s.only == "publish" {
		return nil
	}
	l, err := p.consume(ctx)
	if err != nil {
		return err
	}
	l.print()
	first := func(r result) float64 { return float64(r.first.Milliseconds()) }
	fmt.Fprintf(os.Stdout, "first event after            %7.0f ms %7.0f ms\n", l.median("driver", first), l.median("bare", first))
	return nil
}

// print prints the line with the ratio of the medians and the least and greatest ratio of a round.
func (l *line) print() {
	rate := func(r result) float64 { return r.rate }
	cpu := func(r result) float64 { return r.cpu }
	ratios := make([]float64, len(l.sides["driver"]))
	for i, r := range l.sides["driver"] {
		ratios[i] = r.rate / l.sides["bare"][i].rate
	}
	ratio := fmt.Sprintf("%.2f", l.median("driver", rate)/l.median("bare", rate))
	spread := fmt.Sprintf("%.2f-%.2f", slices.Min(ratios), slices.Max(ratios))
	fmt.Fprintf(os.Stdout, "%-28s %10.0f %10.0f %7s %12s %8.1f %8.1f\n", l.what,
		l.median("driver", rate), l.median("bare", rate), ratio, spread, l.median("driver", cpu), l.median("bare", cpu))
}
