package messaging

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// by is who changes something, and why.
type by struct {
	Who string `json:"who"`
	Why string `json:"why"`
}

const mostWho, mostWhy = 200, 1000 // bytes

// change is op for who changes something.
func (b *by) change(op operation) *operation {
	flags, check := op.Flags, op.Check
	op.by = b
	op.Flags = func(f *pflag.FlagSet) {
		me := os.Getenv("SUDO_USER")
		if u, err := user.Current(); me == "" && err == nil {
			me = u.Username
		}
		f.StringVar(&b.Why, "why", "", "why this is done: it is kept with the change (required)")
		f.StringVar(&b.Who, "who", me, "who does it")
		if flags != nil {
			flags(f)
		}
	}
	op.Check = func() error {
		err := b.validate()
		if err == nil && check != nil {
			err = check()
		}
		return err
	}
	return &op
}

func (b *by) validate() error {
	for _, text := range []struct {
		name, value string
		most        int
	}{{"who", b.Who, mostWho}, {"why", b.Why, mostWhy}} {
		switch {
		case strings.TrimSpace(text.value) == "":
			return cli.Usagef("%s is missing: it is kept with the change", text.name)
		case len(text.value) > text.most || !utf8.ValidString(text.value):
			return cli.Usagef("%s: expected text of at most %d bytes", text.name, text.most)
		}
	}
	return nil
}

// A filter is how people say which dead letters they mean.
type filter struct {
	State     string `json:"state"`
	Topic     string `json:"topic"`
	Group     string `json:"group"`
	Key       string `json:"key"`
	MessageID string `json:"message_id"`
	Reason    string `json:"reason"`
	Since     string `json:"since"`
	Until     string `json:"until"`
}

func (f *filter) flags(set *pflag.FlagSet) {
	set.StringVar(&f.State, "state", "", "only those in this state: retrying, dead or parked")
	set.StringVar(&f.Topic, "topic", "", "only those of this topic")
	set.StringVar(&f.Group, "group", "", "only those of this consumer group")
	set.StringVar(&f.Key, "key", "", "only those with this key")
	set.StringVar(&f.MessageID, "message-id", "", "only the event with this id, the attribute id of its CloudEvent")
	set.StringVar(&f.Reason, "reason", "", "only those with this text in the reason")
	set.StringVar(&f.Since, "since", "", "only those that failed last since then: an age as in 90m, or a time as in 2026-11-29T10:00:00Z")
	set.StringVar(&f.Until, "until", "", "only those that failed last before then")
}

// parse returns f for package outbox.
func (f *filter) parse(now time.Time) (outbox.Filter, error) {
	of := outbox.Filter{State: f.State, Topic: f.Topic, Group: f.Group, Key: f.Key, MessageID: f.MessageID, Reason: f.Reason}
	if states := []string{"", outbox.Retrying, outbox.Dead, outbox.Parked}; !slices.Contains(states, f.State) {
		return of, cli.Usagef("state %q: expected retrying, dead or parked", f.State)
	}
	for _, text := range []string{f.Topic, f.Group, f.Key, f.MessageID, f.Reason} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return of, cli.Usagef("%q: expected text in UTF-8 without NUL", text)
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
		return time.Time{}, cli.Usagef("%s %q: expected an age as in 90m, or a time as in 2026-11-29T10:00:00Z", name, text)
	}
	return at, nil
}

// number reads the number of a dead letter.
func number(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, cli.Usagef("dead letter %q: expected its number, as the list has it under ID", id)
	}
	return n, nil
}

const (
	mostListed  = 100 // on a page
	defaultPage = 50  // the same, when nothing is said
)

// A page is a part of a list: at most limit, beyond what the page before has ended with.
type page struct {
	limit int
	from  int64
	name  string // of from
}

func (p *page) flags(f *pflag.FlagSet) {
	f.IntVar(&p.limit, "limit", defaultPage, fmt.Sprintf("at most so many of each service, up to %d", mostListed))
	f.Int64Var(&p.from, p.name, 0, "only those with an ID "+p.name+" this one: the next page of one service")
}

func (p *page) check() error {
	switch {
	case p.limit < 1 || p.limit > mostListed:
		return cli.Usagef("limit %d: expected 1 to %d", p.limit, mostListed)
	case p.from < 0:
		return cli.Usagef("%s %d: expected an ID", p.name, p.from)
	}
	return nil
}

func (p *page) args(services []string) error {
	if p.from != 0 && len(services) != 1 {
		return cli.Usagef("%s: expected it with one service, as the numbers are each service's own", p.name)
	}
	return nil
}

// read returns what a file says, or the standard input for "-", as far as an event can have it.
func read(file string) (data []byte, err error) {
	in := os.Stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return nil, err
		}
		defer func() { _ = in.Close() }() // it was only read
	}
	return io.ReadAll(io.LimitReader(in, driver.MaxSize+1))
}

const (
	mostNamed    = 1000      // changed in one transaction
	mostSelected = 1_000_000 // changed by one command

	// replayRate is how many dead letters a replay has tried again in a second, at most.
	replayRate = 50
)

// A selection is the dead letters that a change is for.
type selection struct {
	IDs    []int64 `json:"ids"`
	All    bool    `json:"all"`
	Yes    bool    `json:"yes"`
	Filter filter  `json:"filter"`
	Rate   int     `json:"rate"`
	by

	most   int           // of All
	parsed outbox.Filter // of All
}

func (s *selection) flags(f *pflag.FlagSet) {
	s.Filter.flags(f)
	f.BoolVar(&s.All, "all", false, "all that the other flags select, with state dead if nothing is said")
	f.BoolVar(&s.Yes, "yes", false, "all are meant, without a filter")
}

func (s *selection) args(args []string) error {
	s.most = mostSelected
	for _, arg := range args {
		id, err := number(arg)
		if err != nil {
			return err
		}
		s.IDs = append(s.IDs, id)
	}
	return nil
}

func (s *selection) check() (err error) {
	slices.Sort(s.IDs)
	s.IDs = slices.Compact(s.IDs)
	switch filtered := s.Filter != (filter{}); {
	case s.All == (len(s.IDs) > 0), filtered && !s.All:
		return cli.Usagef("which are meant: expected ids, or all with a filter")
	case s.All && !filtered && !s.Yes:
		return cli.Usagef("all means every dead letter of the service: set yes too, or narrow it down with topic, key, since …")
	case len(s.IDs) > mostNamed:
		return cli.Usagef("%d dead letters: expected 1 to %d at once, or all with a filter", len(s.IDs), mostNamed)
	}
	if s.All {
		s.parsed, err = s.Filter.parse(time.Now())
		s.parsed.State = cmp.Or(s.parsed.State, outbox.Dead)
	}
	return err
}

// each does something to what is selected, and returns how many that were.
func (s *selection) each(ctx context.Context, o *operator, do func(ids []int64) (int, error)) (n int, err error) {
	if s.All {
		if s.IDs, err = o.numbers(ctx, s.parsed, cmp.Or(s.most, mostNamed)); err != nil {
			return 0, err
		}
	}
	for ids := range slices.Chunk(s.IDs, mostNamed) {
		some, err := do(ids)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}
