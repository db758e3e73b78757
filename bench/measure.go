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

	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/bench/internal/cpu"
)

// A backlog is filled by several publishers.
const (
	fillers   = 8
	fillBatch = 250
)

var errForeign = errors.New("not all events arrived as they were sent")

// A pair is what is compared: one engine's two sides.
type pair struct {
	engine *engine
	sides  []side
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
	only    string // publish, consume or "" for both
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
	middle, _, _ := command.Spread(list)
	return middle
}

// interleave measures the sides in turns. The first round warms up and does not count.
func (p *pair) interleave(ctx context.Context, what string, measure func(s side, topic string) (result, error)) (*line, error) {
	l := &line{what: what, sides: make(map[string][]result)}
	topics := make(map[string]string)
	for _, s := range p.sides {
		topics[s.name] = fmt.Sprintf("bench.%s.%d", s.name, time.Now().UnixNano())
		if err := s.prepare(ctx, topics[s.name]); err != nil {
			return nil, fmt.Errorf("%s: prepare %s: %w", p.engine.name, topics[s.name], err)
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
			err = errors.Join(err, p.purge(s, topics[s.name]))
			if err != nil {
				return nil, fmt.Errorf("%s %s, %s side: %w", p.engine.name, what, s.name, err)
			}
			if round > 0 {
				l.sides[s.name] = append(l.sides[s.name], r)
			}
		}
	}
	return l, nil
}

// purge removes what a round has left on a server that keeps no history.
func (p *pair) purge(s side, topic string) error {
	server, ok := p.sides[1].client.(interface{ purge(prefix string) error })
	switch {
	case !ok:
		return nil
	case s.name == "driver":
		topic += ":" + p.engine.group + ":" // begin the names of its queues
	}
	return server.purge(topic)
}

func (p *pair) publish(ctx context.Context, senders, batch int) (*line, error) {
	return p.interleave(ctx, fmt.Sprintf("publish, batch %d, %d at once", batch, senders), func(s side, topic string) (result, error) {
		return send(ctx, s, topic, "", senders, batch, func(_ int, since time.Duration) bool { return since < p.slice })
	})
}

// send publishes by several senders, each for as long as more says, knowing its number of events.
func send(ctx context.Context, c client, topic, prefix string, senders, batch int, more func(sent int, since time.Duration) bool) (result, error) {
	publish := make([]func(context.Context, []event) error, senders)
	for i := range publish {
		var err error
		if publish[i], err = c.publisher(topic, i); err != nil {
			return result{}, err
		}
	}
	var total atomic.Int64
	failures := make([]error, senders)
	var all sync.WaitGroup
	begun, used := time.Now(), cpu.Time()
	for i := range publish {
		all.Go(func() {
			s := newSource(fmt.Sprintf("%s%x-%d-", prefix, begun.UnixNano(), i))
			events := make([]event, batch)
			for n := 0; more(n, time.Since(begun)) && failures[i] == nil; n += batch {
				s.fill(events)
				failures[i] = publish[i](ctx, events)
				total.Add(int64(batch))
			}
		})
	}
	all.Wait()
	return newResult(total.Load(), time.Since(begun), cpu.Time()-used), errors.Join(failures...)
}

func newResult(n int64, took, cpu time.Duration) result {
	return result{rate: float64(n) / took.Seconds(), cpu: float64(cpu.Nanoseconds()) / 1000 / float64(n)}
}

func (p *pair) consume(ctx context.Context) (*line, error) {
	filled := make(map[string]bool)
	return p.interleave(ctx, "consume", func(s side, topic string) (result, error) {
		if p.engine.once || !filled[topic] {
			_, err := send(ctx, s, topic, "backlog-", fillers, fillBatch, func(sent int, _ time.Duration) bool { return sent < p.backlog/fillers })
			if err != nil {
				return result{}, fmt.Errorf("fill the backlog: %w", err)
			}
			filled[topic] = true
			runtime.GC()
		}
		return p.drain(ctx, s, topic)
	})
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
			first, used = time.Since(begun), cpu.Time()
		}
		if !strings.HasPrefix(id, "backlog-") || key == "" || len(data) != bodySize {
			foreign.Add(1)
		}
	})
	r := newResult(got.Load(), time.Since(begun)-first, cpu.Time()-used)
	r.first = first
	if err == nil && (got.Load() != int64(p.backlog) || foreign.Load() > 0) {
		err = fmt.Errorf("%d events of %d came, %d of them changed: %w", got.Load(), p.backlog, foreign.Load(), errForeign)
	}
	return r, err
}
