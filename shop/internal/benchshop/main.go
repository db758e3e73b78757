// Command benchshop prints how large programs of the toolkit are, from a hello world to the shop,
// how fast the shop is ready and what memory it keeps when idle, each beside its budget.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shopproc"
)

const (
	rounds = 5
	idle   = 3 * time.Second // from ready to the look at the memory
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "benchshop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "benchshop")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the system's folder for what may stay
	fmt.Println("building …")
	var binary string // the shop's, which is built last
	var sizes []float64
	for _, p := range programs() {
		bin, mb, err := p.build(ctx, dir)
		if err != nil {
			return err
		}
		binary, sizes = bin, append(sizes, mb)
	}
	module := filepath.Join(dir, "module")
	if err := os.Mkdir(module, 0o700); err != nil {
		return err
	}
	required, err := requires(ctx, module)
	if err != nil {
		return err
	}
	var first, again, memory []float64
	for i := range rounds {
		fmt.Printf("round %d of %d …\n", i+1, rounds)
		home := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(home, 0o700); err != nil {
			return err
		}
		in, err := shopproc.New(binary, home)
		if err != nil {
			return err
		}
		f, m, err := measure(ctx, in)
		if err != nil {
			return err
		}
		a, _, err := measure(ctx, in)
		if err != nil {
			return err
		}
		first, again, memory = append(first, f), append(again, a), append(memory, m)
	}
	return report(first, again, memory, sizes, required)
}

// measure starts the shop, waits a little, and stops it.
func measure(ctx context.Context, in *shopproc.Install) (ready, megabytes float64, err error) {
	p, err := in.Start(ctx)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(idle)
	megabytes, err = residentMB(p.PID())
	if err != nil {
		return 0, 0, err
	}
	if err := p.Signal(os.Interrupt); err != nil {
		return 0, 0, err
	}
	return p.Ready.Seconds(), megabytes, p.Wait()
}

var vmRSS = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// residentMB reads the resident memory of a process (Linux).
func residentMB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := vmRSS.FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("no VmRSS in the status of process %d", pid)
	}
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	return kb / 1024, err
}

func report(first, again, memory, sizes []float64, required int) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nwhat\tmedian\tmin\tmax\tbudget")
	row := func(name, unit string, values []float64, budget float64) {
		slices.Sort(values)
		limit := "none"
		if budget > 0 {
			limit = fmt.Sprintf("≤ %g %s", budget, unit)
		}
		fmt.Fprintf(w, "%s\t%.2f %s\t%.2f\t%.2f\t%s\n", name, values[len(values)/2], unit, values[0], values[len(values)-1], limit)
	}
	row("ready, first start", "s", first, 1)
	row("ready, started again", "s", again, 1)
	row("idle memory (VmRSS)", "MB", memory, 120)
	for i, p := range programs() {
		row(p.what+", stripped", "MB", sizes[i:i+1], p.budget)
	}
	row("hello world's go.mod", "modules", []float64{float64(required)}, maxRequires)
	return w.Flush()
}
