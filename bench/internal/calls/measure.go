package calls

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Settings say how to measure.
type Settings struct {
	Rounds   int           // of each stack and number of workers
	Slice    time.Duration // of one stack in one round
	Workers  []int         // that call at the same time
	Sampling []float64
	Foreign  float64 // share of the CPUs that others may use in a slice; a slice with more is measured again
	Note     func(format string, args ...any)
}

// repeats is how often a slice is measured again before its round is given up.
const repeats = 3

// What is measured of a call. CPU time, allocations and bytes are of both sides.
const (
	rate    = iota // calls a second
	cpuTime        // in microseconds
	allocs
	size // of the allocations, in kB
	figures
)

// A Result is one stack with one number of workers and one sampling.
type Result struct {
	Stack          *Stack
	Workers        int
	Sampling       float64
	of             [figures]float64 // medians of the rounds
	ratio          [figures]ratios  // against the base
	p50, p99       float64          // of the latency, in microseconds
	Rounds, Missed int              // measured, and given up because of foreign load
}

// runner is a stack that was started, with what it was measured at.
type runner struct {
	*Stack
	*Running
	env    Env
	before counts
	calls  atomic.Int64 // since before
	slices []slice      // with the present number of workers, one for each round
}

// slice is what was measured in one go. Its figures are NaN if there was foreign load.
type slice struct {
	of      [figures]float64
	latency histogram
	foreign float64
}

// Measure measures all stacks. A base must be among them.
func Measure(ctx context.Context, stacks []*Stack, s Settings) ([]Result, error) {
	var all []Result
	for _, sampling := range s.Sampling {
		results, err := measure(ctx, stacks, sampling, s)
		if err != nil {
			return nil, err
		}
		all = append(all, results...)
	}
	return all, nil
}

func measure(ctx context.Context, stacks []*Stack, sampling float64, s Settings) (results []Result, err error) {
	var all []*runner
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.Stop())
		}
	}()
	for _, stack := range stacks {
		r := &runner{Stack: stack, env: Env{Sampling: sampling, Spans: new(Spans), Lines: new(Lines)}}
		if r.Running, err = stack.Start(ctx, &r.env); err != nil {
			return nil, fmt.Errorf("%s: start: %w", stack.Name, err)
		}
		all = append(all, r)
		if err := r.prove(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", stack.Name, err)
		}
	}
	for _, workers := range s.Workers {
		if err := rounds(ctx, all, workers, s); err != nil {
			return nil, err
		}
		for _, r := range all {
			results = append(results, r.result(all, workers))
		}
		s.Note("sampling %g, %d at once: done", sampling, workers)
	}
	for _, r := range all {
		kept, err := r.check(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s, sampling %g: %w", r.Name, sampling, err)
		}
		if sampling == 1 && kept < 0.995 && r.spansEach() > 0 {
			s.Note("%s: %.0f %% of the spans were lost in the queue", r.Name, 100*(1-kept))
		}
	}
	return results, nil
}

// rounds lets the stacks take turns. Each warms up first.
func rounds(ctx context.Context, all []*runner, workers int, s Settings) error {
	for _, r := range all {
		r.slices = nil
		if _, err := r.slice(ctx, workers, s.Slice/2); err != nil {
			return err
		}
	}
	for round := range s.Rounds {
		for i := range all {
			r := all[(round+i)%len(all)]
			one, err := r.quiet(ctx, workers, s)
			if err != nil {
				return err
			}
			r.slices = append(r.slices, one)
		}
	}
	return nil
}

// quiet measures a slice, and again if there was foreign load.
func (r *runner) quiet(ctx context.Context, workers int, s Settings) (slice, error) {
	for range repeats + 1 {
		one, err := r.slice(ctx, workers, s.Slice)
		if err != nil || one.foreign <= s.Foreign {
			return one, err
		}
		s.Note("%s, %d at once: others used %.0f %% of the CPUs: once more", r.Name, workers, 100*one.foreign)
	}
	return slice{of: [figures]float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}}, nil
}

// slice makes calls for some time.
func (r *runner) slice(ctx context.Context, workers int, length time.Duration) (slice, error) {
	if r.Use != nil {
		r.Use()
	}
	latencies, failures := make([]histogram, workers), make([]error, workers)
	var calls atomic.Int64
	var before, after runtime.MemStats
	var all sync.WaitGroup
	runtime.GC() // the garbage of others is not to be paid here
	runtime.ReadMemStats(&before)
	begun := usageNow()
	for i := range workers {
		all.Go(func() {
			n, last := int64(0), time.Now()
			for (n == 0 || last.Sub(begun.at) < length) && failures[i] == nil { // one call, however late it begins
				failures[i] = r.Call(ctx)
				now := time.Now()
				latencies[i].add(now.Sub(last))
				last = now
				n++
			}
			calls.Add(n)
		})
	}
	all.Wait()
	ended := usageNow()
	runtime.ReadMemStats(&after)
	r.calls.Add(calls.Load())
	if err := errors.Join(failures...); err != nil {
		return slice{}, fmt.Errorf("%s, %d at once: %w", r.Name, workers, err)
	}
	n := float64(calls.Load())
	one := slice{foreign: ended.foreign(begun), of: [figures]float64{
		rate: n / ended.at.Sub(begun.at).Seconds(), cpuTime: float64((ended.own - begun.own).Nanoseconds()) / 1000 / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n, size: float64(after.TotalAlloc-before.TotalAlloc) / 1000 / n,
	}}
	for i := range latencies {
		one.latency.merge(&latencies[i])
	}
	return one, nil
}

// each returns one figure of all rounds.
func (r *runner) each(figure int) []float64 {
	list := make([]float64, 0, len(r.slices))
	for _, s := range r.slices {
		list = append(list, s.of[figure])
	}
	return list
}

func (r *runner) result(all []*runner, workers int) Result {
	var latency histogram
	out := Result{Stack: r.Stack, Workers: workers, Sampling: r.env.Sampling}
	for _, s := range r.slices {
		latency.merge(&s.latency)
		if math.IsNaN(s.of[rate]) {
			out.Missed++
		}
	}
	out.Rounds = len(r.slices) - out.Missed
	out.p50, out.p99 = latency.quantile(0.5), latency.quantile(0.99)
	for figure := range figures {
		out.of[figure], _, _ = spread(r.each(figure))
		out.ratio[figure] = ratiosOf(nil, nil)
		for _, base := range all {
			if base.Name == r.Base {
				out.ratio[figure] = ratiosOf(r.each(figure), base.each(figure))
			}
		}
	}
	return out
}
