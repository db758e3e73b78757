package messaging

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
)

const (
	mostListed  = 100  // dead letters on a page
	defaultPage = 50   // the same, when nothing is said
	mostNamed   = 1000 // changed in one transaction

	// replayRate is how many dead letters a replay has tried again in a second, at most.
	replayRate = 50

	mostWho, mostWhy = 200, 1000 // bytes
)

// A check says whether the data of a delivery can be read.
type check func(d *driver.Delivery) error

func checkOf[T any](decode func(d *driver.Delivery) (Event[T], error)) check {
	return func(d *driver.Delivery) error {
		_, err := decode(d)
		return err
	}
}

// A badRequestError is an error of whoever asks: nothing was done.
type badRequestError struct{ error }

func (b badRequestError) Unwrap() error { return b.error }

func badf(format string, args ...any) error { return badRequestError{fmt.Errorf(format, args...)} }

// An operator changes by hand what one service has set aside, for the commands and the API.
type operator struct {
	bus *bus
	db  *sql.DB
}

// operatorOf returns app's operator; nil when the service keeps no events in a database.
func operatorOf(app *kaptar.App) (*operator, error) {
	b, err := busOf(app)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stored == nil {
		return nil, nil
	}
	if app.Offline() && strings.Contains(app.Settings().DatabaseURL.Reveal(), ":memory:") {
		return nil, fmt.Errorf("%s has its database in memory, where nobody else sees it: start this command where the program runs, "+
			"or say with --data-dir or --set services.%[1]s.database_url where the data is", app.Name())
	}
	return &operator{b, b.stored.db}, nil
}

// by is who changes something, and why.
type by struct {
	Who string `json:"who"`
	Why string `json:"why"`
}

func (b *by) validate() error {
	for _, text := range []struct {
		name, value string
		most        int
	}{{"who", b.Who, mostWho}, {"why", b.Why, mostWhy}} {
		switch {
		case strings.TrimSpace(text.value) == "":
			return badf("%s is missing: it is kept with the change", text.name)
		case len(text.value) > text.most || !utf8.ValidString(text.value):
			return badf("%s: expected text of at most %d bytes", text.name, text.most)
		}
	}
	return nil
}

// A filter is how people say which dead letters they mean.
type filter struct {
	State     string `json:"state,omitempty"`
	Topic     string `json:"topic,omitempty"`
	Group     string `json:"group,omitempty"`
	Key       string `json:"key,omitempty"`
	MessageID string `json:"message_id,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Since     string `json:"since,omitempty"`
	Until     string `json:"until,omitempty"`
}

// parse returns f for package outbox.
func (f *filter) parse(now time.Time) (outbox.Filter, error) {
	of := outbox.Filter{State: f.State, Topic: f.Topic, Group: f.Group, Key: f.Key, MessageID: f.MessageID, Reason: f.Reason}
	if states := []string{"", outbox.Retrying, outbox.Dead, outbox.Parked}; !slices.Contains(states, f.State) {
		return of, badf("state %q: expected retrying, dead or parked", f.State)
	}
	for _, text := range []string{f.Topic, f.Group, f.Key, f.MessageID, f.Reason} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return of, badf("%q: expected text in UTF-8 without NUL", text)
		}
	}
	var err error
	if of.Since, err = parseTime("since", f.Since, now); err == nil {
		of.Until, err = parseTime("until", f.Until, now)
	}
	return of, err
}

// parseTime reads a time of the clock, or an age as in "90m"; "" is the zero time.
func parseTime(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(strings.TrimPrefix(text, "-")); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, badf("%s %q: expected an age as in 90m, or a time as in 2026-11-29T10:00:00Z", name, text)
	}
	return at, nil
}

// number reads the number of a dead letter.
func number(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, badf("dead letter %q: expected its number, as the list has it under ID", id)
	}
	return n, nil
}

// A selection is the dead letters that a change is for: those that somebody named, or, with a State,
// those that were in that state when they were selected.
type selection struct {
	ids   []int64
	state string
}

// change does something to the selected dead letters, writes it down, and returns how many they were.
// It is done for all of them or for none, but those of a state may have left it since: others work at
// them too. do is told how many were done before.
func (o *operator) change(
	ctx context.Context, sel selection, action string, who by, do func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, before int) error,
) (n int, err error) {
	if err := who.validate(); err != nil {
		return 0, err
	}
	if n := len(sel.ids); n == 0 || n > mostNamed {
		return 0, badf("%d dead letters: expected 1 to %d at once", n, mostNamed)
	}
	defer sqldb.NewSignal(o.db, retryLease).Notify()
	err = sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error {
		n = 0
		for _, id := range sel.ids {
			d, err := outbox.GetDeadLetter(ctx, tx, id)
			switch {
			case err == nil && sel.state != "" && d.State != sel.state:
				continue
			case err == nil:
				err = do(ctx, tx, &d, n)
			}
			switch {
			case err == nil:
				n++
				kept := &record{Who: who.Who, Why: who.Why, Action: action}
				err = kept.of(&d).add(ctx, tx)
			case sel.state != "" && errors.Is(err, outbox.ErrNoDeadLetter):
				err = nil
			}
			if err != nil {
				return fmt.Errorf("messaging: %s: %s: %w", o.bus.app.Name(), action, err)
			}
		}
		return nil
	})
	return n, err
}

// replay has dead letters tried again, at most rate of them in a second from the time begin on. One
// that the broker refused goes back into the outbox.
func (o *operator) replay(ctx context.Context, sel selection, rate int, begin time.Time, who by) (int, error) {
	if rate < 1 || rate > replayRate {
		return 0, badf("rate %d: expected 1 to %d a second", rate, replayRate)
	}
	return o.change(ctx, sel, "replay", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, before int) error {
		if err := o.current(d); err != nil {
			return err
		}
		if err := outbox.ReplayDeadLetter(ctx, tx, d.ID); err != nil {
			return err
		}
		return d.Delay(ctx, tx, begin.Add(time.Duration(before)*time.Second/time.Duration(rate)))
	})
}

// current refuses to replay what no group of the service would try again.
func (o *operator) current(d *outbox.DeadLetter) error {
	if d.Kind == outbox.Publish {
		return nil
	}
	if o.consumer(d) == nil {
		return badf("dead letter %d: %s has no subscription to %s in group %s any more: drop it, or subscribe again",
			d.ID, o.bus.app.Name(), d.Message.Topic, d.Group)
	}
	return nil
}

func (o *operator) drop(ctx context.Context, sel selection, who by) (int, error) {
	return o.change(ctx, sel, "drop", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, _ int) error {
		return outbox.DropDeadLetter(ctx, tx, d.ID)
	})
}

// edit gives a dead letter new data, unless that is nil, and headers; a header with an empty value
// goes. What its subscription, or publisher, could not read is refused.
func (o *operator) edit(ctx context.Context, id int64, data []byte, headers map[string]string, who by) error {
	if data == nil && len(headers) == 0 {
		return badf("there is nothing to change: expected new data or headers")
	}
	_, err := o.change(ctx, selection{ids: []int64{id}}, "edit", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, _ int) error {
		edited := d.Message
		if data != nil {
			edited.Data = data
		}
		all := d.Message.Headers.Map()
		for name, value := range headers {
			if all[name] = value; value == "" {
				delete(all, name)
			}
		}
		edited.Headers = driver.HeadersOf(all)
		if err := d.Edit(ctx, tx, edited); err != nil {
			return err
		}
		if check := o.checkOf(d); check != nil {
			if err := check(&driver.Delivery{Message: edited, Attempt: 1}); err != nil {
				return badRequestError{err}
			}
		}
		return nil
	})
	if errors.Is(err, driver.ErrInvalid) || errors.Is(err, driver.ErrTooLarge) {
		return badRequestError{err}
	}
	return err
}

// consumer returns whose event d is; nil when there is no such subscription.
func (o *operator) consumer(d *outbox.DeadLetter) *consumer {
	o.bus.mu.Lock()
	defer o.bus.mu.Unlock()
	group, _, _ := strings.Cut(d.Group, "#") // the generation of a group that was reset
	return o.bus.subscribed[[2]string{d.Message.Topic, group}]
}

// checkOf is how the data of d is read; nil when that is not known.
func (o *operator) checkOf(d *outbox.DeadLetter) check {
	if d.Kind == outbox.Publish {
		o.bus.mu.Lock()
		defer o.bus.mu.Unlock()
		return o.bus.publishes[d.Message.Topic]
	}
	if c := o.consumer(d); c != nil {
		return c.check
	}
	return nil
}

// A letter is a dead letter as it is shown.
type letter struct {
	Service   string            `json:"service"`
	ID        int64             `json:"id"`
	State     string            `json:"state"`
	Kind      string            `json:"kind"`
	Topic     string            `json:"topic"`
	Key       string            `json:"key"`
	Group     string            `json:"group"`
	MessageID string            `json:"message_id"`
	Source    string            `json:"source"`
	Seq       int64             `json:"seq,omitempty"`
	Reason    string            `json:"reason"`
	Attempts  int               `json:"attempts"`
	FirstAt   time.Time         `json:"first_at"`
	LastAt    time.Time         `json:"last_at"`
	DueAt     *time.Time        `json:"due_at,omitempty"`
	TraceID   string            `json:"trace_id,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Data      json.RawMessage   `json:"data,omitempty"`        // when it is JSON
	Base64    []byte            `json:"data_base64,omitempty"` // when it is not
}

// letter shows d, whole or for a list.
func (o *operator) letter(d *outbox.DeadLetter, whole bool) letter {
	m := &d.Message
	l := letter{
		Service: o.bus.app.Name(), ID: d.ID, State: d.State, Kind: d.Kind, Topic: m.Topic, Key: m.Key, Group: d.Group, MessageID: m.ID,
		Source: m.Headers.Get(driver.HeaderSource), Seq: d.Seq, Reason: d.Reason, Attempts: d.Attempts, FirstAt: d.FirstAt.UTC(), LastAt: d.LastAt.UTC(),
	}
	if !d.DueAt.IsZero() {
		due := d.DueAt.UTC()
		l.DueAt = &due
	}
	if span := telemetry.ParseTraceparent(m.Headers.Get(driver.HeaderTraceParent), ""); span.HasTraceID() {
		l.TraceID = span.TraceID().String()
	}
	if whole {
		l.Headers = m.Headers.Map()
		if json.Valid(m.Data) && utf8.Valid(m.Data) {
			l.Data = m.Data
		} else {
			l.Base64 = m.Data
		}
	}
	return l
}

// list returns a page, and the number to go on after; 0 when that was all.
func (o *operator) list(ctx context.Context, f outbox.Filter) (page []letter, next int64, err error) {
	if f.Limit < 1 || f.Limit > mostListed {
		return nil, 0, badf("limit %d: expected 1 to %d", f.Limit, mostListed)
	}
	limit := f.Limit
	f.WithoutData = true
	f.Limit++
	all, err := outbox.DeadLetters(ctx, o.db, &f)
	if err != nil {
		return nil, 0, fmt.Errorf("messaging: %s: %w", o.bus.app.Name(), err)
	}
	page = make([]letter, 0, len(all))
	for i := range all[:min(len(all), limit)] {
		page = append(page, o.letter(&all[i], false))
	}
	if len(all) > limit {
		next = page[limit-1].ID
	}
	return page, next, nil
}

// numbers returns those of all dead letters that f selects, up to limit.
func (o *operator) numbers(ctx context.Context, f outbox.Filter, limit int) (ids []int64, err error) {
	f.WithoutData = true
	for f.Limit = mostListed; len(ids) < limit; {
		page, err := outbox.DeadLetters(ctx, o.db, &f)
		if err != nil {
			return nil, fmt.Errorf("messaging: %s: %w", o.bus.app.Name(), err)
		}
		for i := range page {
			ids = append(ids, page[i].ID)
		}
		if len(page) < mostListed {
			break
		}
		f.After = ids[len(ids)-1]
	}
	return ids[:min(len(ids), limit)], nil
}

// isBad reports whether err is one of whoever asks.
func isBad(err error) bool {
	_, bad := errors.AsType[badRequestError](err)
	return bad
}
