package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// A system runs checkouts on a database.
type system interface {
	// run starts a checkout and returns when it is over.
	run(ctx context.Context, id string) error
	close()
}

// opens are the systems by name. Their checkouts call s.
var opens = map[string]func(ctx context.Context, url string, s *services) (system, error){"kaptar": openKaptar, "dbos": openDBOS}

func main() { command.Main(run) }

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 7, "measured rounds of each")
	sagas := flag.Int("sagas", 2000, "checkouts of a round")
	at := flag.Int("at", 64, "checkouts at a time")
	kills := flag.Int("kills", 10, "how often each is killed")
	only := flag.String("only", "", "kaptar or dbos alone")
	child := flag.String("child", "", "run checkouts of this system on the database of KAPTAR_SAGAS_URL: used by the kill test")
	flag.Parse()
	if *child != "" {
		return runChild(ctx, *child, *sagas, *at)
	}
	server, err := servers.Provide(ctx, os.Stderr, servers.Postgres, nil)
	if err != nil {
		return err
	}
	defer server.Close()
	base := server.URL()
	names := slices.DeleteFunc([]string{"kaptar", "dbos"}, func(n string) bool { return *only != "" && n != *only })
	fmt.Printf("%s, %d CPUs, PostgreSQL with synchronous_commit on; medians (min–max) of %d rounds of %d checkouts of 3 steps, %d at a time\n\n",
		runtime.Version(), runtime.NumCPU(), *rounds, *sagas, *at)
	fmt.Println("| steps a second | kaptar | DBOS | in the same round |\n|---|---|---|---|")
	for _, end := range []bool{false, true} {
		rates, err := measure(ctx, base, names, end, *rounds, *sagas, *at)
		if err != nil {
			return err
		}
		fmt.Println(line(end, rates["kaptar"], rates["dbos"]))
	}
	fmt.Println()
	var errs []error
	for _, name := range names {
		errs = append(errs, killed(ctx, base, name, *kills), edges(ctx, base, name))
	}
	return errors.Join(errs...)
}

// database makes one with empty tables and returns its URL.
func database(ctx context.Context, base, name string) (string, error) {
	url, err := servers.NewDatabase(ctx, base, name)
	if err != nil {
		return "", err
	}
	return url, servers.Execute(ctx, url, tables)
}

// measure runs rounds of all systems in turn and returns their steps a second. The first round of
// each does not count.
func measure(ctx context.Context, base string, names []string, end bool, rounds, sagas, at int) (map[string][]float64, error) {
	open := make(map[string]system)
	for _, name := range names {
		url, err := database(ctx, base, "sagas_"+name)
		if err != nil {
			return nil, err
		}
		if open[name], err = opens[name](ctx, url, &services{end: end}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer open[name].close()
	}
	rates := make(map[string][]float64)
	for round := range rounds + 1 {
		for _, name := range names {
			began := time.Now()
			if err := all(ctx, open[name], fmt.Sprint(round, "-"), sagas, at); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			rate := 3 * float64(sagas) / time.Since(began).Seconds()
			fmt.Fprintf(os.Stderr, "round %d: %s %.0f steps a second\n", round, name, rate)
			if round > 0 {
				rates[name] = append(rates[name], rate)
			}
		}
	}
	return rates, nil
}

// all runs sagas checkouts, at at a time.
func all(ctx context.Context, sys system, prefix string, sagas, at int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, at)
	for worker := range at {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(sagas) && errs[worker] == nil; n = next.Add(1) {
				errs[worker] = sys.run(ctx, prefix+strconv.FormatInt(n, 10))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// line is that of a table.
func line(end bool, ours, theirs []float64) string {
	name := "3 steps"
	if end {
		name = "3 steps, and an end with a row of its own"
	}
	ratios := make([]float64, min(len(ours), len(theirs)))
	for i := range ratios {
		ratios[i] = ours[i] / theirs[i]
	}
	if len(ratios) == 0 {
		return fmt.Sprint("| ", name, " | ", ours, " | ", theirs, " |")
	}
	middle, least, most := command.Spread(ratios)
	return fmt.Sprintf("| %s | %s | %s | %.1f× (%.1f–%.1f) |", name, spread(ours), spread(theirs), middle, least, most)
}

func spread(v []float64) string {
	middle, least, most := command.Spread(v)
	return fmt.Sprintf("%.0f (%.0f–%.0f)", middle, least, most)
}
