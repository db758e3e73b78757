package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// lagTimeout bounds a question to a broker, and flowsFor is how long the answer about all topics stands.
const lagTimeout, flowsFor = 5 * time.Second, time.Second

// A flow is one topic of a service as it is shown: what it publishes, or what one of its groups reads.
type flow struct {
	Service    string           `json:"service"`
	Topic      string           `json:"topic"`
	Group      string           `json:"group,omitempty"` // "": the service publishes to the topic
	Generation int64            `json:"generation,omitempty"`
	Partitions []partition      `json:"partitions,omitempty"`
	Lag        *int64           `json:"lag,omitempty"` // nil: not known
	Oldest     *time.Time       `json:"oldest,omitempty"`
	LagError   string           `json:"lag_error,omitempty"`
	SetAside   map[string]int64 `json:"set_aside,omitempty"` // by state
	Outbox     *int             `json:"outbox,omitempty"`    // of a publisher: what waits in the service's outbox, of all topics
}

// A partition is what waits for a group in one partition.
type partition struct {
	Name    string     `json:"name"`
	Waiting int64      `json:"waiting"`
	Oldest  *time.Time `json:"oldest,omitempty"`
}

// lag asks the broker what waits for c's group.
func (c *consumer) lag(ctx context.Context) ([]driver.PartitionLag, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	br, err := c.bus.broker(ctx, c.topic)
	if err != nil {
		return nil, err
	}
	reporter, ok := br.(driver.LagReporter)
	if !ok {
		return nil, errors.New("this broker does not know")
	}
	return reporter.Lag(ctx, c.subscription())
}

// flows returns all topics of the service, up to a second old. One caller at a time asks for them.
func (o *operator) flows(ctx context.Context) (*flowPage, error) {
	b := o.bus
	select {
	case b.asking <- struct{}{}:
		defer func() { <-b.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if time.Since(b.asked) < flowsFor {
		return b.flows, nil
	}
	page, err := o.ask(ctx)
	if err == nil && ctx.Err() == nil { // else what it lacks is this caller's fault
		b.flows, b.asked = page, time.Now()
	}
	return page, err
}

func (o *operator) ask(ctx context.Context) (*flowPage, error) {
	all := []flow{}
	counts, err := outbox.CountDeadLetters(ctx, o.db)
	if err != nil {
		return nil, err
	}
	groups, err := outbox.Groups(ctx, o.db)
	if err != nil {
		return nil, err
	}
	waiting, _, err := o.bus.stored.relay.Backlog(ctx)
	if err != nil {
		return nil, err
	}
	o.bus.mu.Lock()
	consumers, topics := slices.Collect(maps.Values(o.bus.subscribed)), slices.Sorted(maps.Keys(o.bus.publishes))
	o.bus.mu.Unlock()
	count := func(f *flow, kind string) {
		for _, n := range counts {
			if group, _, _ := strings.Cut(n.Group, "#"); n.Topic == f.Topic && n.Kind == kind && (group == f.Group || kind == outbox.Publish) {
				if f.SetAside == nil {
					f.SetAside = map[string]int64{}
				}
				f.SetAside[n.State] += n.N
			}
		}
	}
	for _, topic := range topics {
		f := flow{Service: o.bus.app.Name(), Topic: topic, Outbox: &waiting}
		count(&f, outbox.Publish)
		all = append(all, f)
	}
	slices.SortFunc(consumers, func(a, b *consumer) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.opts.Group, b.opts.Group))
	})
	at := len(all)
	all = append(all, make([]flow, len(consumers))...)
	var lags sync.WaitGroup
	for i, c := range consumers {
		f := &all[at+i]
		*f = flow{Service: o.bus.app.Name(), Topic: c.topic, Group: c.opts.Group}
		for _, g := range groups {
			if g.Name == f.Group && g.Topic == f.Topic {
				f.Generation = g.Generation
			}
		}
		count(f, outbox.Consume)
		lags.Go(func() { f.measure(c.lag(ctx)) })
	}
	lags.Wait()
	return &flowPage{all}, nil
}

// measure notes what a broker has answered.
func (f *flow) measure(all []driver.PartitionLag, err error) {
	if err != nil {
		f.LagError = err.Error()
		return
	}
	f.Lag = new(int64)
	for _, p := range all {
		*f.Lag += p.Waiting
		shown := partition{Name: p.Partition, Waiting: p.Waiting}
		if at := p.Oldest.UTC(); !p.Oldest.IsZero() {
			shown.Oldest = &at
			if f.Oldest == nil || at.Before(*f.Oldest) {
				f.Oldest = &at
			}
		}
		f.Partitions = append(f.Partitions, shown)
	}
}

// A flowPage is all of them.
type flowPage struct {
	Events []flow `json:"events"`
}

// Rows implements operate.Rows.
func (p *flowPage) Rows() (rows [][]string, note string) {
	now := time.Now()
	for i := range p.Events {
		f := &p.Events[i]
		role, waiting, oldest := "consumer", f.waiting(), ""
		if f.Group == "" {
			role, waiting = "publisher", fmt.Sprintf("%d in the outbox", *f.Outbox)
		}
		if f.Oldest != nil {
			oldest = age(*f.Oldest, now)
		}
		row := []string{f.Service, f.Topic, role, f.Group, waiting, oldest}
		for _, state := range []string{outbox.Retrying, outbox.Dead, outbox.Parked} {
			row = append(row, strconv.FormatInt(f.SetAside[state], 10))
		}
		rows = append(rows, row)
		if line := fmt.Sprintf("What waits is not known: %s: %s\n", f.Service, redact.Lines(f.LagError)); f.LagError != "" && !strings.Contains(note, line) {
			note += line
		}
	}
	return rows, note
}

// waiting is the lag with the partitions that have some.
func (f *flow) waiting() string {
	if f.Lag == nil {
		return "?"
	}
	var parts []string
	for _, p := range f.Partitions {
		if p.Waiting > 0 && p.Name != "" {
			parts = append(parts, fmt.Sprintf("%s: %d", p.Name, p.Waiting))
		}
	}
	text := strconv.FormatInt(*f.Lag, 10)
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// awaitReset waits until the broker has been told.
func (o *operator) awaitReset(ctx context.Context, call *kaptar.Call, g *outbox.Group) error {
	for begun := time.Now(); steady.Sleep(ctx, watchEvery); {
		groups, err := outbox.Groups(ctx, o.db)
		if err != nil {
			return err
		}
		for _, now := range groups {
			if now.Name == g.Name && now.Topic == g.Topic && (now.Generation > g.Generation || !now.Pending) {
				_, err := fmt.Fprintf(call.Stdout, "Group %s of %s begins again.\n", g.Name, g.Topic)
				return err
			}
		}
		switch silent := time.Since(begun); {
		case silent > nobodyAfter && o.nobody(ctx):
			fmt.Fprintf(call.Stderr, "No process of %s is there. The reset is written down: the group begins again at the next start.\n", o.bus.app.Name())
			return nil
		case silent > stuckAfter:
			fmt.Fprintf(call.Stderr, "The reset is written down, but not done yet: see the log of %s. It tries again until the broker does it.\n", o.bus.app.Name())
			return cli.ExitError(cli.Failed)
		}
	}
	return ctx.Err()
}
