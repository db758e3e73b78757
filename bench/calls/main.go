// Command calls measures the same call through kaptar, its rivals and bare libraries, side by side
// in one process, and prints tables of Markdown:
//
//	go run . [-rounds 9] [-slice 500ms] [-stacks kaptar,bare] [-workers 1,16,64] [-sampling 0.01,1] [-docs ../../docs]
//
// With -docs it also writes them into performance.md of that folder, with the chart performance.svg.
// How it measures is in package bench/internal/calls, what the figures say in docs/performance.md.
// It is a module of its own for the sake of its rivals' 200 modules.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/bench/internal/calls"
	"github.com/kaptar/kaptar/bench/internal/command"
)

// stacks are all that are measured, in the order of the table.
func stacks() []*calls.Stack {
	all := calls.Features{ServerSpans: 1, ClientSpans: 1, ServerMetrics: 1, ClientMetrics: 1, Lines: 1}
	logsTwice, noClientMetrics := all, all
	logsTwice.Lines, noClientMetrics.Lines, noClientMetrics.ClientMetrics = 2, 2, 0
	http := func(name string, f calls.Features, start startFunc, on string) *calls.Stack {
		return &calls.Stack{Name: name, Protocol: calls.HTTP, Base: calls.BareHTTP, Features: f, Start: start, On: on}
	}
	grpc := func(name string, f calls.Features, start startFunc, on string) *calls.Stack {
		return &calls.Stack{Name: name, Protocol: calls.GRPC, Base: calls.BareGRPC, Features: f, Start: start, On: on}
	}
	return append(calls.Stacks(),
		http("net/http + deadline + trace header", calls.Features{}, startFloorHTTP, "a deadline on both sides and a traceparent that nobody reads"),
		http("hand-assembled", all, startHand, "otelhttp and client_golang on both sides, gobreaker, slog access log, recovery"),
		http("Kratos HTTP", logsTwice, startKratosHTTP, "recovery, tracing, metrics and logging on both sides, SRE breaker, discovery, selector"),
		http("go-zero HTTP", noClientMetrics, startGoZeroHTTP, "all default middlewares of rest and httpc; httpc has no metrics; its shedder never sheds here"),
		http("bare Hertz", calls.Features{}, startHertz, "nothing; HTTP stacks of its own on both sides"),
		grpc("grpc-go + deadline + trace header", calls.Features{}, startFloorGRPC, "a deadline on both sides and a traceparent that nobody reads"),
		grpc("grpc-go + otelgrpc", calls.Features{ServerSpans: 1, ClientSpans: 1}, startOtelGRPC, "tracing alone"),
		grpc("Kratos gRPC", logsTwice, startKratosGRPC, "as over HTTP"),
		grpc("go-zero zrpc", all, startGoZeroRPC, "all default interceptors of zrpc, P2C; its shedder never sheds here"),
	)
}

type startFunc = func(context.Context, *calls.Env) (*calls.Running, error)

func main() { command.Main(run) }

func run(ctx context.Context) error {
	s := calls.Settings{Note: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flag.IntVar(&s.Rounds, "rounds", 9, "measured rounds")
	flag.DurationVar(&s.Slice, "slice", 500*time.Millisecond, "time of each stack in a round")
	flag.Float64Var(&s.Foreign, "foreign", 0.05, "share of the CPUs that others may use; a slice with more is measured again")
	names := flag.String("stacks", "", "comma-separated parts of names; default all")
	workers := flag.String("workers", "1,16,64", "numbers of callers")
	sampling := flag.String("sampling", "0.01,1", "shares of the traces that are recorded")
	docs := flag.String("docs", "", "folder with the performance.md to write")
	profile := flag.String("cpuprofile", "", "file for a CPU profile of all of it")
	flag.Parse()
	list := slices.DeleteFunc(stacks(), func(st *calls.Stack) bool {
		return !slices.ContainsFunc(strings.Split(*names, ","), func(n string) bool { return strings.Contains(st.Name, n) })
	})
	for _, text := range strings.Split(*workers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("workers %q: want numbers from 1", *workers)
		}
		s.Workers = append(s.Workers, n)
	}
	for _, text := range strings.Split(*sampling, ",") {
		share, err := strconv.ParseFloat(text, 64)
		if err != nil || share < 0 || share > 1 {
			return fmt.Errorf("sampling %q: want numbers from 0 to 1", *sampling)
		}
		s.Sampling = append(s.Sampling, share)
	}
	stop, err := command.Profile(*profile)
	if err != nil {
		return err
	}
	defer stop()
	results, err := calls.Measure(ctx, list, s)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	missed := 0
	for _, r := range results {
		missed += r.Missed
	}
	fmt.Fprintf(&out, "%s, %s/%s, %d CPUs, medians of %d rounds of %s; %d of %d slices were given up because others used more than %g %% of the CPUs.\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.Rounds, s.Slice, missed, s.Rounds*len(results), 100*s.Foreign)
	calls.Table(&out, results)
	fmt.Fprintf(&out, "\n%s\n", command.Versions(`/(grpc|otel|otelhttp|otelgrpc|client_golang|gobreaker/v2|kratos/v2|go-zero|hertz)$`))
	if _, err := os.Stdout.Write(out.Bytes()); err != nil || *docs == "" {
		return err
	}
	return write(*docs, out.String(), results)
}

func write(docs, text string, results []calls.Result) error {
	if err := command.Write(docs, "bench-calls", text); err != nil {
		return err
	}
	var chart bytes.Buffer
	if err := calls.Chart(&chart, results); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "performance.svg"), chart.Bytes(), 0o644)
}
