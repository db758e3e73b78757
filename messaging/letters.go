package messaging

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/telemetry"
)

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

// A letterPage is a part of the list.
type letterPage struct {
	Letters []letter `json:"dead_letters"`
	Next    int64    `json:"next"` // the number to go on after; 0: that was all
	service string
}

func (o *operator) list(ctx context.Context, f outbox.Filter) (*letterPage, error) {
	limit := f.Limit
	f.Limit++
	f.WithoutData = true
	all, err := outbox.DeadLetters(ctx, o.db, &f)
	if err != nil {
		return nil, fmt.Errorf("messaging: %s: %w", o.bus.app.Name(), err)
	}
	p := &letterPage{Letters: make([]letter, 0, len(all)), service: o.bus.app.Name()}
	for i := range all[:min(len(all), limit)] {
		p.Letters = append(p.Letters, o.letter(&all[i], false))
	}
	if len(all) > limit {
		p.Next = p.Letters[limit-1].ID
	}
	return p, nil
}

const mostReason = 60 // characters in the list

// Rows implements operate.Rows.
func (p *letterPage) Rows() (rows [][]string, note string) {
	now := time.Now()
	for i := range p.Letters {
		l := &p.Letters[i]
		state := l.State
		if l.Kind == outbox.Publish {
			state += " (refused)"
		}
		reason, _, _ := strings.Cut(l.Reason, "\n")
		if short := []rune(reason); len(short) > mostReason {
			reason = string(short[:mostReason-1]) + "…"
		}
		rows = append(rows, []string{l.Service, strconv.FormatInt(l.ID, 10), state, l.Topic, l.Key, l.Group, strconv.Itoa(l.Attempts), age(l.LastAt, now), reason})
	}
	if p.Next != 0 {
		note = fmt.Sprintf("There are more: %s deadletters list %s --after %d\n", cli.Program(), p.service, p.Next)
	}
	return rows, note
}

// show returns one dead letter, whole.
func (o *operator) show(ctx context.Context, id int64) (letter, error) {
	d, err := outbox.GetDeadLetter(ctx, o.db, id)
	if err != nil {
		return letter{}, fmt.Errorf("%w: see the list of %s", err, o.bus.app.Name())
	}
	return o.letter(&d, true), nil
}

// print prints l with all that it has.
func (l *letter) print(w io.Writer) error {
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	rows := [][]string{
		{"service", l.Service}, {"id", strconv.FormatInt(l.ID, 10)}, {"state", l.State}, {"kind", l.Kind}, {"topic", l.Topic}, {"key", l.Key},
		{"group", l.Group}, {"event", l.MessageID}, {"source", l.Source}, {"attempts", strconv.Itoa(l.Attempts)},
		{"first failed", at(l.FirstAt)}, {"last failed", at(l.LastAt)},
	}
	if l.Seq != 0 {
		rows = append(rows, []string{"number of its key", strconv.FormatInt(l.Seq, 10)})
	}
	if l.DueAt != nil {
		rows = append(rows, []string{"tried next", at(*l.DueAt)})
	}
	rows = append(rows, []string{"trace", cmp.Or(l.TraceID, "none")})
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		rows = append(rows, []string{"header " + name, l.Headers[name]})
	}
	if err := cli.Table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nreason\n%s\n\ndata\n%s\n", redact.Visible(l.Reason, "\n\t"), l.text())
	return err
}

// text is the data of l as people read it: JSON indented, else text, else base64.
func (l *letter) text() string {
	var b bytes.Buffer
	switch {
	case l.Data != nil && json.Indent(&b, l.Data, "", "  ") == nil:
		return redact.Visible(b.String(), "\n")
	case utf8.Valid(l.Base64):
		return redact.Visible(string(l.Base64), "\n\t")
	}
	return "(base64) " + base64.StdEncoding.EncodeToString(l.Base64)
}

// age is how long ago something was, for people.
func age(at, now time.Time) string {
	d := now.Sub(at)
	switch {
	case at.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", max(0, d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}
