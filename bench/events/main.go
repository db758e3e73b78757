// Command events measures events from a committed transaction to a handler's effect, through kaptar
// and through Watermill, side by side in one process, and prints tables of Markdown:
//
//	go run . [-rounds 4] [-stacks kaptar] [-parts drain,writers,latency,pieces,redelivery] [-events 4000] [-time 1500ms] [-docs ../../docs]
//
// With -docs it also writes them into performance.md of that folder. How it measures is in package
// bench/internal/events, what the figures say in docs/performance.md. It is a module of its own for
// the sake of Watermill's modules.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/bench/internal/events"
)

// rivals are Watermill in its two schemas, without and with its deduplicator.
func rivals() []*events.Stack {
	watermill := func(name, on string, r rival) *events.Stack {
		return &events.Stack{Name: "Watermill, " + name, Database: events.Postgres, On: on, Open: r.open}
	}
	const on = "forwarder, 16 JetStream subscribers, message ids, acknowledgements not waited for, effect in a transaction"
	return []*events.Stack{
		watermill("pub/sub schema", on, rival{}),
		watermill("pub/sub schema, deduplicator", on+", Deduplicator by UUID", rival{dedup: true}),
		watermill("queue schema", on+", rows deleted", rival{queue: true}),
		watermill("queue schema, deduplicator", on+", rows deleted, Deduplicator by UUID", rival{queue: true, dedup: true}),
	}
}

// polling are those whose latency is measured.
func polling() []*events.Stack {
	const poll = 10 * time.Millisecond
	return []*events.Stack{
		{Name: "Watermill, pub/sub schema, poll 10 ms", Database: events.Postgres, Open: rival{poll: poll}.open},
		{Name: "Watermill, queue schema, poll 10 ms", Database: events.Postgres, Open: rival{queue: true, poll: poll}.open},
		{Name: "Watermill, queue schema, default poll", Database: events.Postgres, Open: rival{queue: true}.open},
	}
}

func main() { command.Main(run) }

func run(ctx context.Context) error {
	s := events.Settings{Note: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flag.IntVar(&s.Rounds, "rounds", 4, "measured rounds, after one that warms up")
	flag.IntVar(&s.Events, "events", 4000, "events of a backlog, half of them on a durable broker")
	flag.DurationVar(&s.Time, "time", 1500*time.Millisecond, "time of the writers in a turn")
	flag.IntVar(&s.Writers, "writers", 16, "writers at full speed")
	names := flag.String("stacks", "", "comma-separated parts of names; default all")
	parts := flag.String("parts", "drain,writers,latency,pieces,redelivery", "what is measured")
	docs := flag.String("docs", "", "folder with the performance.md to write")
	profile := flag.String("cpuprofile", "", "file for a CPU profile of all of it")
	flag.Parse()
	stop, err := command.Profile(*profile)
	if err != nil {
		return err
	}
	defer stop()
	on, err := events.NewServers()
	if err != nil {
		return err
	}
	defer on.Close()
	m := &measurement{ctx: ctx, on: on, s: s, names: strings.Split(*names, ",")}
	begun := time.Now()
	for _, part := range strings.Split(*parts, ",") {
		if err := m.part(part); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s, %s/%s, %d CPUs, load average %s, %d rounds, %.0f s in all.\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), load(), s.Rounds, time.Since(begun).Seconds())
	out.Write(m.out.Bytes())
	fmt.Fprintf(&out, "\n%s\n", command.Versions(`/(watermill|watermill-sql/v4|watermill-nats/v2|nats-server/v2|nats\.go|pgx/v5)$`))
	if _, err := os.Stdout.Write(out.Bytes()); err != nil || *docs == "" {
		return err
	}
	return command.Write(*docs, "bench-events", out.String())
}

// A measurement collects tables.
type measurement struct {
	ctx   context.Context
	on    *events.Servers
	s     events.Settings
	names []string
	out   bytes.Buffer
}

// some returns those of list that are asked for.
func (m *measurement) some(list []*events.Stack) []*events.Stack {
	return slices.DeleteFunc(list, func(st *events.Stack) bool {
		return !slices.ContainsFunc(m.names, func(n string) bool { return strings.Contains(st.Name, n) })
	})
}

func (m *measurement) part(name string) error {
	list := m.some(append(events.Stacks(), rivals()...))
	switch name {
	case "drain":
		return m.both(events.DrainTitle(), events.Drain, list)
	case "writers":
		list = slices.DeleteFunc(list, func(st *events.Stack) bool { return strings.HasSuffix(st.Name, "deduplicator") }) // whose cost is in the drain
		return m.both(events.WritersTitle(), events.Writers, list)
	case "latency":
		list = m.some(append(events.Stacks(), polling()...))
		few := m.s
		few.Rounds = min(few.Rounds, 2) // each has hundreds of latencies
		var all []events.Series
		for _, every := range []time.Duration{5 * time.Millisecond, 2 * time.Millisecond} {
			series, err := events.Latency(m.ctx, m.on, list, every, few)
			if err != nil {
				return err
			}
			all = append(all, series...)
		}
		events.LatencyTable(&m.out, all)
		return nil
	case "pieces":
		return events.Pieces(m.ctx, &m.out, m.on, m.s)
	case "redelivery":
		return m.redelivery()
	}
	return fmt.Errorf("unknown part: expected drain, writers, latency, pieces or redelivery")
}

// both measures with a broker of either kind.
func (m *measurement) both(title events.Title, measure events.Measure, list []*events.Stack) error {
	var of [2][]events.Series
	for i, durable := range []bool{false, true} {
		var err error
		if of[i], err = measure(m.ctx, m.on, list, durable, m.s); err != nil {
			return err
		}
	}
	events.Table(&m.out, title, of[0], of[1])
	return nil
}

// load is the machine's load average, so that the reader sees whether it was quiet.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:2], " ")
}
