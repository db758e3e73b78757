package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// An engine is a server with the two sides that use it.
type engine struct {
	name  string
	start func(ctx context.Context) (url string, stop func(), err error)
	open  func(ctx context.Context, url string) (driver, bare client, err error)
	only  string // publish, consume or "" for both
	once  bool   // the backlog can be drained only once
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == natsServer {
		if err := serveNATS(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 7, "measured rounds of each line")
	flag.DurationVar(&s.slice, "slice", 500*time.Millisecond, "time of each side in a round of publishing")
	flag.IntVar(&s.backlog, "backlog", 400_000, "events that a round of consuming drains; RabbitMQ and NATS have a tenth of it")
	flag.StringVar(&s.only, "only", "", "publish or consume")
	flag.StringVar(&s.side, "side", "", "driver or bare: that side alone, for a profile")
	names := flag.String("engines", "nats-embedded,nats,kafka,kafka-each,rabbitmq,rabbitmq-key", "what to measure")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	s.batches, s.senders = []int{1, 16, 500}, []int{1, 16}
	flag.Func("batch", "only this batch size", number(&s.batches))
	flag.Func("senders", "only this number of publishers", number(&s.senders))
	flag.Parse()
	chosen, err := choose(strings.Split(*names, ","))
	if err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, f.Close())
		}()
	}
	for _, e := range chosen {
		if err := measure(ctx, &e, s); err != nil {
			return err
		}
	}
	return nil
}

func number(list *[]int) func(string) error {
	return func(text string) error {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			return errors.New("want a number above 0")
		}
		*list = []int{n}
		return nil
	}
}

func choose(names []string) ([]engine, error) {
	all := engines()
	var list []engine
	for _, name := range names {
		i := slices.IndexFunc(all, func(e engine) bool { return e.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no engine %q, want some of nats-embedded, nats, kafka, kafka-each, rabbitmq and rabbitmq-key", name)
		}
		list = append(list, all[i])
	}
	return list, nil
}

func measure(ctx context.Context, e *engine, s settings) error {
	url, stop, err := e.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	drv, bare, err := e.open(ctx, url)
	if err != nil {
		return err
	}
	defer drv.close()
	defer bare.close()
	p := &pair{engine: e.name, once: e.once, settings: s, sides: []side{{"driver", drv}, {"bare", bare}}}
	p.sides = slices.DeleteFunc(p.sides, func(one side) bool { return s.side != "" && s.side != one.name })
	if e.name != "kafka" && e.name != "kafka-each" { // the others are ten times slower
		p.backlog /= 10
	}
	p.backlog -= p.backlog % (fillers * fillBatch)
	fmt.Fprintf(os.Stdout, "\n%-28s %21s %20s %17s\n", "", "messages a second", "ratio of rates", "client CPU, µs")
	fmt.Fprintf(os.Stdout, "%-28s %10s %10s %7s %12s %8s %8s\n", e.name, "driver", "bare", "median", "min-max", "driver", "bare")
	if s.only != "consume" && e.only != "consume" {
		for _, senders := range s.senders {
			for _, batch := range s.batches {
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
	ratio, spread := "", ""
	if a, b := l.sides["driver"], l.sides["bare"]; a != nil && b != nil {
		ratios := make([]float64, len(a))
		for i := range a {
			ratios[i] = a[i].rate / b[i].rate
		}
		ratio = fmt.Sprintf("%.2f", l.median("driver", rate)/l.median("bare", rate))
		spread = fmt.Sprintf("%.2f-%.2f", slices.Min(ratios), slices.Max(ratios))
	}
	fmt.Fprintf(os.Stdout, "%-28s %10.0f %10.0f %7s %12s %8.1f %8.1f\n", l.what,
		l.median("driver", rate), l.median("bare", rate), ratio, spread, l.median("driver", cpu), l.median("bare", cpu))
}
