package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkShop prints how large programs of the toolkit are, from a hello world to the shop, how
// fast the shop is ready and what memory it keeps when idle, each beside its budget.
func BenchmarkShop(b *testing.B) {
	const rounds = 5
	var sizes, first, again, memory []float64
	var production string // the shop's program, which is built last
	dir := b.TempDir()
	for _, p := range programs() {
		bin, mb, err := p.build(b.Context(), dir)
		if err != nil {
			b.Fatal(err)
		}
		production, sizes = bin, append(sizes, mb)
	}
	module := filepath.Join(dir, "module")
	if err := os.Mkdir(module, 0o700); err != nil {
		b.Fatal(err)
	}
	required, err := requires(b.Context(), module)
	if err != nil {
		b.Fatal(err)
	}
	for i := range rounds {
		fmt.Printf("round %d of %d …\n", i+1, rounds)
		in := newInstall(b, production)
		ready, mb := measure(b, in)
		first, memory = append(first, ready), append(memory, mb)
		ready, _ = measure(b, in)
		again = append(again, ready)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
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
}

// measure starts the shop, waits a little, and stops it.
func measure(b *testing.B, in *install) (ready, megabytes float64) {
	b.Helper()
	p, err := in.Start(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	<-time.After(3 * time.Second) // it is idle by then
	megabytes, err = residentMB(p.PID())
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Signal(os.Interrupt); err != nil {
		b.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		b.Fatal(err)
	}
	return p.Ready.Seconds(), megabytes
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
