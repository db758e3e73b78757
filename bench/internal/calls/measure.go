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

// A Result is one stack with one number of workers and one sampling. Fields are medians of rounds.
type Result struct {
	Stack    *Stack
	Workers  int
	Sampling float64

	Rate           float64 // calls a second
	Ratio          ratios  // of Rate to that of the base in the same round
	CPU, CPURatio  float64 // microseconds of both sides a call, and against the base's
	Allocs, Bytes  float64 // a call, of both sides
	P50, P99       time.Duration
	Rounds, Missed int     // measured, and given up because of foreign load
	Kept           float64 // share of the spans that were not lost in a queue; 0 without spans
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

// slice is what was measured in one go. All figures are NaN if there was foreign load.
type slice struct {
	rate, cpu, allocs, bytes float64
	latency                  *histogram
	foreign                  float64
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
	kept := make(map[*Stack]float64)
	for _, r := range all {
		if kept[r.Stack], err = r.check(ctx); err != nil {
			return nil, fmt.Errorf("%s, sampling %g: %w", r.Name, sampling, err)
		}
	}
	for i := range results {
		results[i].Kept = kept[results[i].Stack]
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
	nan := math.NaN()
	return slice{rate: nan, cpu: nan, allocs: nan, bytes: nan, latency: new(histogram)}, nil
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
			for last.Sub(begun.at) < length && failures[i] == nil {
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
	one := slice{
		rate: n / ended.at.Sub(begun.at).Seconds(), cpu: float64((ended.own - begun.own).Nanoseconds()) / 1000 / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n, bytes: float64(after.TotalAlloc-before.TotalAlloc) / n,
		latency: new(histogram), foreign: ended.foreign(begun),
	}
	for i := range latencies {
		one.latency.merge(&latencies[i])
	}
	return one, nil
}

// each returns one figure of all rounds.
func (r *runner) each(of func(slice) float64) []float64 {
	list := make([]float64, 0, len(r.slices))
	for _, s := range r.slices {
		list = append(list, of(s))
	}
	return list
}

func (r *runner) result(all []*runner, workers int) Result {
	rate := func(s slice) float64 { return s.rate }
	cpu := func(s slice) float64 { return s.cpu }
	over := func(of func(slice) float64) float64 {
		var list []float64
		for _, v := range r.each(of) {
			if !math.IsNaN(v) {
				list = append(list, v)
			}
		}
		return median(list)
	}
	latency := new(histogram)
	out := Result{Stack: r.Stack, Workers: workers, Sampling: r.env.Sampling}
	for _, s := range r.slices {
		latency.merge(s.latency)
		if math.IsNaN(s.rate) {
			out.Missed++
		} else {
			out.Rounds++
		}
	}
	for _, base := range all {
		if base.Name == r.Base {
			out.Ratio = ratiosOf(r.each(rate), base.each(rate))
			out.CPURatio = ratiosOf(r.each(cpu), base.each(cpu)).median
		}
	}
	out.Rate, out.CPU = over(rate), over(cpu)
	out.Allocs = over(func(s slice) float64 { return s.allocs })
	out.Bytes = over(func(s slice) float64 { return s.bytes })
	out.P50, out.P99 = latency.quantile(0.5), latency.quantile(0.99)
	return out
}
