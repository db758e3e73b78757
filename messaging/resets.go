package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	groupsSignal = "groups"        // wakes those who wait for a reset
	groupsPoll   = 4 * time.Second // a signal is faster
	// resetAfter is how long the members of a group have to notice a reset before the broker's
	// position is moved.
	resetAfter = groupsPoll + time.Second
	resetRetry = 500 * time.Millisecond
	resetLimit = 10 * time.Second // for one attempt
)

// generations are the groups of one service that were reset, with their generation.
type generations struct {
	db     *sql.DB
	log    *slog.Logger
	signal *sqldb.Signal

	mu      sync.Mutex
	groups  map[[2]string]outbox.Group // by topic and name
	changed chan struct{}              // closed at the next change
}

type generationsKey struct{}

// generationsOf returns the generations of the bus's service, which are kept up to date from the
// first call on.
func (b *bus) generationsOf(db *sql.DB) (*generations, error) {
	return kaptar.Attach(b.app, generationsKey{}, func() (*generations, error) {
		g := &generations{db: db, log: b.app.Logger(), signal: sqldb.NewSignal(db, groupsSignal), changed: make(chan struct{})}
		if err := g.read(b.app.Context()); err != nil {
			return nil, fmt.Errorf("messaging: %s: %w", b.app.Name(), err)
		}
		b.app.Go("resets of groups", g.follow)
		return g, nil
	})
}

func (g *generations) read(ctx context.Context) error {
	all, err := outbox.Groups(ctx, g.db)
	if err != nil {
		return err
	}
	groups := make(map[[2]string]outbox.Group, len(all))
	for _, group := range all {
		groups[[2]string{group.Topic, group.Name}] = group
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	different := len(groups) != len(g.groups)
	for key, group := range groups {
		old := g.groups[key]
		different = different || old.Generation != group.Generation || old.Pending != group.Pending
	}
	if g.groups = groups; different {
		close(g.changed)
		g.changed = make(chan struct{})
	}
	return nil
}

func (g *generations) follow(stop context.Context) error {
	outage := &steady.Outage{What: "groups in the database", Log: g.log}
	for stop.Err() == nil {
		g.signal.Wait(stop, groupsPoll)
		if err := g.read(stop); stop.Err() == nil {
			outage.Note(stop, err)
		}
	}
	return nil
}

// of returns a group, and a channel that is closed when it may have changed.
func (g *generations) of(topic, name string) (outbox.Group, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	group, ok := g.groups[[2]string{topic, name}]
	if !ok {
		group = outbox.Group{Name: name, Topic: topic}
	}
	return group, g.changed
}

// subscription returns what the driver needs to know of c.
func (c *consumer) subscription() driver.Subscription {
	return driver.Subscription{
		Topic: c.topic, Raw: c.raw, Group: c.opts.Group, From: c.opts.From, Ordered: c.ordered, MaxInFlight: max(minInFlight, 2*c.opts.Concurrency),
	}
}

// runGenerations runs c, and runs it again after each reset of its group, until stop ends or the
// broker is closed.
func (c *consumer) runGenerations(stop context.Context, br driver.Broker, sub driver.Subscription) error {
	if c.db == nil {
		return c.run(stop, br, sub)
	}
	for {
		group, ok := c.join(stop, br, sub)
		if !ok {
			return nil
		}
		turn, leave := context.WithCancel(stop)
		go func() {
			defer leave()
			for {
				now, changed := c.generations.of(c.topic, c.opts.Group)
				if now.Generation != group.Generation {
					return
				}
				select {
				case <-changed:
				case <-turn.Done():
					return
				}
			}
		}()
		err := c.run(turn, br, sub)
		left := turn.Err() != nil
		leave()
		if err != nil || !left || stop.Err() != nil {
			return err
		}
	}
}

// join waits until the current generation of c's group has begun, and makes c a member of it. If a
// reset is pending, one of the processes performs it.
func (c *consumer) join(stop context.Context, br driver.Broker, sub driver.Subscription) (outbox.Group, bool) {
	outage := &steady.Outage{What: "reset of a group", Log: c.bus.app.Logger(), Attrs: []slog.Attr{
		slog.String("topic", c.topic), slog.String("group", c.opts.Group),
	}}
	for stop.Err() == nil {
		group, changed := c.generations.of(c.topic, c.opts.Group)
		var err error
		if group.Pending {
			if err = c.reset(stop, &group, br, sub); err == nil {
				select {
				case <-changed:
				case <-stop.Done():
				case <-time.After(resetRetry):
				}
				continue
			}
		} else if err = c.become(stop, &group); err == nil {
			outage.Back(stop)
			return group, true
		}
		outage.Lost(stop, err)
		steady.Sleep(stop, resetRetry)
	}
	return outbox.Group{}, false
}

// become makes c a member of group's generation.
func (c *consumer) become(ctx context.Context, group *outbox.Group) error {
	if group.Generation > 0 {
		err := sqldb.InTx(ctx, c.db, func(ctx context.Context, tx *sql.Tx) error { return group.CarryOver(ctx, tx) })
		if err != nil {
			return err
		}
	}
	c.inbox = c.inboxOf(group)
	return nil
}

func (c *consumer) inboxOf(group *outbox.Group) outbox.Inbox {
	return outbox.Inbox{
		Group: group.Inbox(), Ordered: c.ordered,
		// After a reset to a time the earlier events of a key are gone, so its first event need not
		// wait for them.
		FromNow: c.opts.From == FromNow && group.Generation == 0 || !group.To.IsZero(),
	}
}

// takeAgain removes letter from what is set aside. If it is from before a reset, the event may have
// come again since, so the current inbox is asked too.
func (c *consumer) takeAgain(ctx context.Context, tx *sql.Tx, letter *outbox.DeadLetter) (outcome, error) {
	group, _ := c.generations.of(c.topic, c.opts.Group)
	turn, inbox := outbox.Handle, c.inboxOf(&group)
	if letter.Group != inbox.Group {
		var err error
		if turn, err = inbox.Take(ctx, tx, &letter.Message, 0); err != nil {
			return "", err
		}
	}
	if turn == outbox.Early {
		return "", Permanent(errors.New("earlier events of its key have not come since the group was reset: replay it when they have"))
	}
	return outcomeOf(turn), letter.Take(ctx, tx)
}

// reset moves the broker's position to the start of group's generation, unless another process
// does.
func (c *consumer) reset(stop context.Context, group *outbox.Group, br driver.Broker, sub driver.Subscription) error {
	lease, err := sqldb.TryLease(stop, c.db, "reset "+c.topic+" "+c.opts.Group)
	if err != nil || lease == nil {
		return err
	}
	defer lease.Release()
	resetter, ok := br.(driver.Resetter)
	if !ok {
		return errNoReset
	}
	if !steady.Sleep(stop, resetAfter) {
		return nil
	}
	ctx, cancel := context.WithTimeout(stop, resetLimit)
	defer cancel()
	if err := resetter.Reset(ctx, sub, group.To); err != nil {
		return fmt.Errorf("messaging: reset of group %s of %s: %w", c.opts.Group, c.topic, err)
	}
	err = sqldb.InTx(ctx, c.db, func(ctx context.Context, tx *sql.Tx) error { return group.Done(ctx, tx) })
	if err != nil {
		return err
	}
	c.bus.app.Logger().InfoContext(ctx, "group was reset", "topic", c.topic, "group", c.opts.Group, "to", group.To)
	if err := c.generations.read(ctx); err != nil {
		return err
	}
	c.generations.signal.Notify()
	return nil
}

// errNoReset is the error of a broker that keeps no history.
var errNoReset = errors.New("messaging: this broker cannot begin again: it keeps no events that every group has handled; " +
	"have the publisher send them again (events resend)")

// current checks that an event which seems to be a duplicate was handled in the current generation
// of the group. It passes err on.
func (c *consumer) current(ctx context.Context, tx *sql.Tx, turn outbox.Turn, err error) error {
	if err != nil || turn != outbox.Duplicate {
		return err
	}
	groups, err := outbox.Groups(ctx, tx)
	if err != nil {
		return err
	}
	for i := range groups {
		if g := &groups[i]; g.Topic == c.topic && g.Name == c.opts.Group && g.Inbox() != c.inbox.Group {
			return fmt.Errorf("%w: the group was reset meanwhile", errStopped)
		}
	}
	return nil
}

// A reset is an operator's request.
type reset struct {
	Topic string `json:"topic"`
	Group string `json:"group"` // default: the service's only one
	To    string `json:"to"`    // "beginning", a time or an age
	by
}

// find returns the consumer that is meant, and the time to begin at.
func (r *reset) find(o *operator, now time.Time) (c *consumer, to time.Time, err error) {
	if r.To == "" {
		return nil, to, cli.Usagef("to is missing: expected beginning, a time as in 2026-11-29T10:00:00Z, or an age as in -1h")
	}
	if r.To != "beginning" {
		if to, err = parseTime("to", r.To, now); err == nil && to.After(now) {
			err = cli.Usagef("to %q: expected a time that has passed", r.To)
		}
		if err != nil {
			return nil, to, err
		}
	}
	o.bus.mu.Lock()
	defer o.bus.mu.Unlock()
	var groups, topics []string
	for key, s := range o.bus.subscribed {
		if key[0] == r.Topic && (r.Group == "" || r.Group == key[1]) {
			groups, c = append(groups, key[1]), s
		}
		topics = append(topics, key[0]+" in group "+key[1])
	}
	slices.Sort(topics)
	slices.Sort(groups)
	switch {
	case len(groups) == 0:
		return nil, to, cli.Usagef("%s has no subscription to %s %s: expected one of %s", o.bus.app.Name(), r.Topic, r.Group, strings.Join(topics, ", "))
	case len(groups) > 1:
		return nil, to, cli.Usagef("%s reads %s in the groups %s: say which with group", o.bus.app.Name(), r.Topic, strings.Join(groups, ", "))
	case c.db == nil:
		return nil, to, cli.Usagef("%s reads %s with SubscribeAutoAck: there is nothing that says what it has handled", o.bus.app.Name(), r.Topic)
	}
	return c, to, nil
}

// reset stores that a group begins again. The running service performs it, or its next start.
func (o *operator) reset(ctx context.Context, r *reset) (g outbox.Group, err error) {
	c, to, err := r.find(o, time.Now())
	if err != nil {
		return g, err
	}
	if err := c.canReset(ctx); err != nil {
		return g, err
	}
	g = outbox.Group{Name: c.opts.Group, Topic: c.topic, To: to}
	err = sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error {
		if err := g.Reset(ctx, tx); err != nil {
			return err
		}
		kept := record{
			Who: r.Who, Why: r.Why, Action: "reset", Group: g.Name, Topic: g.Topic, Before: fmt.Appendf(nil, `{"to": %q, "generation": %d}`, r.To, g.Generation-1),
		}
		return kept.add(ctx, tx)
	})
	sqldb.NewSignal(o.db, groupsSignal).Notify()
	return g, err
}

// canReset returns an error if the broker cannot reset a group.
func (c *consumer) canReset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	br, err := c.bus.broker(ctx, c.topic)
	if err != nil {
		return err
	}
	resetter, ok := br.(driver.Resetter)
	// No driver resets the empty subscription, but one that can reset nothing says so before it
	// looks at it.
	if !ok || errors.Is(resetter.Reset(ctx, driver.Subscription{}, time.Time{}), errors.ErrUnsupported) {
		return cli.Usagef("%w", errNoReset)
	}
	return health(br)
}

// resend puts the events that the service has sent since then, and still keeps, back into its
// outbox.
func (o *operator) resend(ctx context.Context, since, topic string, who by) (int, error) {
	from, err := parseTime("since", since, time.Now())
	switch {
	case err != nil:
		return 0, err
	case from.IsZero():
		return 0, cli.Usagef("since is missing: expected an age as in 10m, or a time as in 2026-11-29T10:00:00Z")
	case kaptar.SectionOf[Settings](o.bus.app).Outbox.Keep <= 0:
		return 0, cli.Usagef("%s keeps no events that were sent: set outbox.keep, for example to 10m, before the next time", o.bus.app.Name())
	}
	err = sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error {
		kept := record{Who: who.Who, Why: who.Why, Action: "resend", Topic: topic, Before: fmt.Appendf(nil, `{"since": %q}`, from.UTC().Format(time.RFC3339))}
		return kept.add(ctx, tx)
	})
	if err != nil {
		return 0, err
	}
	n, err := outbox.Resend(ctx, o.db, from, topic)
	if err != nil {
		err = fmt.Errorf("messaging: %s: %d are in the outbox again: %w", o.bus.app.Name(), n, err)
	}
	return n, err
}
