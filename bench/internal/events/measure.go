package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Settings say how much is measured.
type Settings struct {
	Rounds  int
	Events  int           // in the backlog of a turn, half of it on a durable broker
	Time    time.Duration // of the writers of a turn
	Writers int
	Note    func(format string, args ...any) // told what goes on
}

// A Series are the rounds of one stack in one measurement.
type Series struct {
	Stack   *Stack
	Durable bool
	Rate    []float64 // events a second, by round
	Late    []float64 // ms from the commit to the handler, of all rounds, in order
	Self    []float64 // µs of CPU of this process per event, by round
	Server  []float64 // the same of PostgreSQL
	Doubly  int       // effects more than events
	env     *Env
	Every   time.Duration // of latencies: the pause between two events
}

// Drain measures a backlog until its last effect is committed.
func Drain(ctx context.Context, on *Servers, list []*Stack, durable bool, s Settings) ([]Series, error) {
	n := s.Events
	if durable {
		n /= 2
	}
	return rounds(ctx, on, list, durable, s, n*s.Rounds+n, func(ctx context.Context, t *turn) error {
		t.env.Log.expect(n)
		if err := t.running.Relay(ctx, t.first, n); err != nil {
			return err
		}
		end, err := t.env.Log.wait(ctx)
		t.count(n, end)
		return err
	})
}

// Writers measures what writers at full speed get through to the last effect.
func Writers(ctx context.Context, on *Servers, list []*Stack, durable bool, s Settings) ([]Series, error) {
	capacity := int(s.Time.Seconds()*30_000+1000) * (s.Rounds + 1)
	return rounds(ctx, on, list, durable, s, capacity, func(ctx context.Context, t *turn) error {
		t.env.Log.expect(math.MaxInt32)
		if err := t.running.Relay(ctx, t.first, 0); err != nil {
			return err
		}
		t.env.Begin()
		var next atomic.Int64
		next.Store(int64(t.first))
		var work sync.WaitGroup
		failures := make(chan error, s.Writers)
		for range s.Writers {
			work.Go(func() {
				for time.Since(t.env.begun.at) < s.Time {
					if err := t.running.Write(ctx, int(next.Add(1)-1)); err != nil {
						failures <- err
						return
					}
				}
			})
		}
		work.Wait()
		select {
		case err := <-failures:
			return err
		default:
		}
		t.env.Log.expectAll(int(next.Load()))
		end, err := t.env.Log.wait(ctx)
		t.count(int(next.Load())-t.first, end)
		return err
	})
}

// Latency measures from the return of a commit to the beginning of the handler, with one event each
// pause.
func Latency(ctx context.Context, on *Servers, list []*Stack, every time.Duration, s Settings) ([]Series, error) {
	n := int(s.Time / every)
	series, err := rounds(ctx, on, list, false, s, (n+1)*(s.Rounds+1), func(ctx context.Context, t *turn) error {
		t.env.Log.expect(n)
		if err := t.running.Relay(ctx, t.first, 0); err != nil {
			return err
		}
		committed, failures := make([]time.Time, n), make(chan error, n)
		var work sync.WaitGroup
		for i, begun := 0, time.Now(); i < n; i++ {
			time.Sleep(time.Until(begun.Add(time.Duration(i) * every)))
			work.Go(func() {
				if err := t.running.Write(ctx, t.first+i); err != nil {
					failures <- err
				}
				committed[i] = time.Now()
			})
		}
		work.Wait()
		select {
		case err := <-failures:
			return err
		default:
		}
		if _, err := t.env.Log.wait(ctx); err != nil {
			return err
		}
		t.wrote, t.rate = n, 1/every.Seconds()
		for i, at := range committed {
			late := time.Duration(t.env.Log.begun[t.first+i].Load() - at.UnixNano())
			t.late = append(t.late, max(0, late).Seconds()*1000)
		}
		return nil
	})
	for i := range series {
		slices.Sort(series[i].Late)
		series[i].Every = every
	}
	return series, err
}

// A turn is one round of one stack.
type turn struct {
	env     *Env
	running Running
	first   int // number of the first event

	wrote int
	rate  float64
	late  []float64

	self, server float64
}

// count notes that n events were written, and handled by end.
func (t *turn) count(n int, end time.Time) {
	t.wrote, t.rate = n, float64(n)/end.Sub(t.env.begun.at).Seconds()
	t.self, t.server = t.env.since(t.env.begun, n)
}

// rounds lets the stacks take turns. The first round warms up and does not count.
func rounds(ctx context.Context, on *Servers, list []*Stack, durable bool, s Settings, capacity int, measure func(context.Context, *turn) error) ([]Series, error) {
	series, envs, next := make([]Series, len(list)), make([]*Env, len(list)), make([]int, len(list))
	for i, stack := range list {
		var err error
		if envs[i], err = on.env(ctx, stack, durable, capacity); err != nil {
			return nil, err
		}
		series[i] = Series{Stack: stack, Durable: durable, env: envs[i]}
	}
	for round := range s.Rounds + 1 {
		for j := range list {
			i := (j + round) % len(list)
			t := &turn{env: envs[i], first: next[i]}
			if err := t.take(ctx, list[i], measure); err != nil {
				return nil, fmt.Errorf("%s: %w", list[i].Name, err)
			}
			next[i] += t.wrote
			doubly, err := t.env.proof(ctx, next[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list[i].Name, err)
			}
			s.Note("round %d, durable %t: %s: %.0f/s", round, durable, list[i].Name, t.rate)
			if round > 0 {
				one := &series[i]
				one.Rate, one.Late, one.Doubly = append(one.Rate, t.rate), append(one.Late, t.late...), doubly
				one.Self, one.Server = append(one.Self, t.self), append(one.Server, t.server)
			}
		}
	}
	return series, nil
}

func (t *turn) take(ctx context.Context, stack *Stack, measure func(context.Context, *turn) error) (err error) {
	if t.running, err = stack.Open(ctx, t.env); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.running.Close()) }()
	return measure(ctx, t)
}

// proof returns an error unless the databases have an order and an effect of each of n events, and
// how many effects there are more.
func (e *Env) proof(ctx context.Context, n int) (doubly int, err error) {
	orders, _, err := count(ctx, e.Publisher, "bench_orders")
	if err != nil {
		return 0, err
	}
	rows, different, err := count(ctx, e.Handle, "bench_effects")
	if err == nil && (orders != n || different != n) {
		err = fmt.Errorf("events: %d events, but %d orders and effects of %d", n, orders, different)
	}
	return rows - different, err
}
