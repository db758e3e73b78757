package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A backlog is filled by several publishers.
const (
	fillers   = 8
	fillBatch = 250
)

var errForeign = errors.New("not all events arrived as they were sent")

// A pair is what is compared: one engine's two sides.
type pair struct {
	engine string
	sides  []side
	once   bool // a topic's backlog can be drained only once
	settings
}

type side struct {
	name string // driver or bare
	client
}

// settings are the flags.
type settings struct {
	rounds  int
	slice   time.Duration
	backlog int
	batches []int
	senders []int
	only    string // publish, consume or "" for both
	side    string // driver or bare alone, for a profile; "" for both
}

// A result is what one side did in one round.
type result struct {
	rate  float64       // messages a second
	cpu   float64       // microseconds a message that this process was busy; with an embedded server's
	first time.Duration // until the first event came
}

// A line is one row of the table: the rounds of each side, by its name.
type line struct {
	what  string
	sides map[string][]result
}

// median returns the median of a side's rounds.
func (l *line) median(side string, of func(r result) float64) float64 {
	list := make([]float64, 0, len(l.sides[side]))
	for _, r := range l.sides[side] {
		list = append(list, of(r))
	}
	slices.Sort(list)
	switch n := len(list); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (list[n/2-1] + list[n/2]) / 2
	default:
		return list[n/2]
	}
}

// interleave measures the sides in turns. The first round warms up and does not count.
func (p *pair) interleave(ctx context.Context, what string, measure func(s side, topic string) (result, error)) (*line, error) {
	l := &line{what: what, sides: make(map[string][]result)}
	topics := make(map[string]string)
	for _, s := range p.sides {
		topics[s.name] = fmt.Sprintf("bench.%s.%d", s.name, time.Now().UnixNano())
		if err := s.prepare(ctx, topics[s.name]); err != nil {
			return nil, fmt.Errorf("%s: prepare %s: %w", p.engine, topics[s.name], err)
		}
	}
	for round := range p.rounds + 1 {
		order := slices.Clone(p.sides)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			runtime.GC() // the garbage of the other side is not to be paid here
			r, err := measure(s, topics[s.name])
			err = errors.Join(err, s.purge(ctx, topics[s.name]))
			if err != nil {
				return nil, fmt.Errorf("%s %s, %s side: %w", p.engine, what, s.name, err)
			}
			if round > 0 {
				l.sides[s.name] = append(l.sides[s.name], r)
			}
		}
	}
	return l, nil
}

func (p *pair) publish(ctx context.Context, senders, batch int) (*line, error) {
	return p.interleave(ctx, fmt.Sprintf("publish, batch %d, %d at once", batch, senders), func(s side, topic string) (result, error) {
		return p.publishSlice(ctx, s, topic, senders, batch)
	})
}

// publishSlice publishes for the time of a slice.
func (p *pair) publishSlice(ctx context.Context, c client, topic string, senders, batch int) (result, error) {
	send := make([]func(context.Context, []event) error, senders)
	for i := range send {
		var err error
		if send[i], err = c.publisher(topic, i); err != nil {
			return result{}, err
		}
	}
	var sent atomic.Int64
	failures := make([]error, senders)
	var all sync.WaitGroup
	begun, used := time.Now(), cpuTime()
	for i := range send {
		all.Go(func() {
			s := newSource(fmt.Sprintf("%x-%d-", begun.UnixNano(), i))
			events := make([]event, batch)
			for time.Since(begun) < p.slice && failures[i] == nil {
				s.fill(events)
				failures[i] = send[i](ctx, events)
				sent.Add(int64(batch))
			}
		})
	}
	all.Wait()
	return newResult(sent.Load(), time.Since(begun), cpuTime()-used), errors.Join(failures...)
}

func newResult(n int64, took, cpu time.Duration) result {
	return result{rate: float64(n) / took.Seconds(), cpu: float64(cpu.Nanoseconds()) / 1000 / float64(n)}
}

func (p *pair) consume(ctx context.Context) (*line, error) {
	filled := make(map[string]bool)
	return p.interleave(ctx, "consume", func(s side, topic string) (result, error) {
		if p.once || !filled[topic] {
			if err := p.fill(ctx, s, topic); err != nil {
				return result{}, fmt.Errorf("fill the backlog: %w", err)
			}
			filled[topic] = true
			runtime.GC()
		}
		return p.drain(ctx, s, topic)
	})
}

// fill publishes a backlog, which is not measured.
func (p *pair) fill(ctx context.Context, c client, topic string) error {
	var all sync.WaitGroup
	failures := make([]error, fillers)
	for i := range fillers {
		send, err := c.publisher(topic, i)
		if err != nil {
			return err
		}
		all.Go(func() {
			s := newSource(fmt.Sprintf("backlog-%x-%d-", time.Now().UnixNano(), i))
			events := make([]event, fillBatch)
			for n := 0; n < p.backlog && failures[i] == nil; n += fillers * fillBatch {
				s.fill(events)
				failures[i] = send(ctx, events)
			}
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

// drain consumes a backlog. Time runs from the first event.
func (p *pair) drain(ctx context.Context, c client, topic string) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var got, foreign atomic.Int64
	var first, used time.Duration
	begun := time.Now()
	err := c.consume(ctx, topic, p.backlog, func(id, key string, data []byte) {
		if got.Add(1) == 1 {
			first, used = time.Since(begun), cpuTime()
		}
		if !strings.HasPrefix(id, "backlog-") || key == "" || len(data) != bodySize {
			foreign.Add(1)
		}
	})
	r := newResult(got.Load(), time.Since(begun)-first, cpuTime()-used)
	r.first = first
	if err == nil && (got.Load() != int64(p.backlog) || foreign.Load() > 0) {
		err = fmt.Errorf("%d events of %d came, %d of them changed: %w", got.Load(), p.backlog, foreign.Load(), errForeign)
	}
	return r, err
}
