package schema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A Break is a change of a topic's schema that breaks some consumer.
type Break struct {
	Topic string `json:"topic"`
	Field string `json:"field,omitempty"` // for example items[].sku; "" is the whole schema
	// Who is "old consumers cannot read new events" or "new consumers cannot read old events"; ""
	// if it does not matter.
	Who  string `json:"who,omitempty"`
	Rule string `json:"rule"` // what is not allowed, such as "required field removed"
	Do   string `json:"do"`   // what to do instead
}

func (b Break) String() string {
	parts := []string{b.Topic, b.Field, b.Who, b.Rule, b.Do}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ": ")
}

const (
	oldConsumers = "old consumers cannot read new events"
	newConsumers = "new consumers cannot read old events"
)

// Compare returns what breaks between two schemas of one topic, sorted by field. During a release
// old and new versions run side by side, and events of the old one wait in the broker. So old
// consumers must be able to read new events, and new consumers old ones. Fields that a reader does
// not know are ignored, as subscriptions ignore them. What is not in a schema, such as the ranges
// of Validate methods or the meaning of a field, is not compared.
func Compare(topic string, before, now *Schema) []Break {
	c := &comparison{topic: topic}
	for _, of := range []struct {
		roots pair
		find  func(roots, p pair)
	}{
		{pair{before, now}, func(roots, p pair) { c.reads(roots, p, "", oldConsumers) }},
		{pair{now, before}, func(roots, p pair) { c.reads(roots, p, "", newConsumers) }},
		{pair{before, now}, func(roots, p pair) { c.numbers(roots, p, "") }},
	} {
		c.seen = map[pair]bool{of.roots: true}
		of.find(of.roots, of.roots)
	}
	if before.ContentType != now.ContentType {
		c.found("", "", fmt.Sprintf("content type was %s, is %s", cmp.Or(before.ContentType, "application/json"), cmp.Or(now.ContentType, "application/json")), "")
	}
	slices.SortStableFunc(c.breaks, func(a, b Break) int { return strings.Compare(a.Field, b.Field) })
	return slices.Compact(c.breaks)
}

// Check compares the schemas of this build, by topic, with the files TOPIC.json of dir, which a
// release has written. A topic may be removed one release after a later version of it was added.
func Check(dir fs.FS, now map[string]*Schema) ([]Break, error) {
	files, err := fs.Glob(dir, "*.json")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("schema: no files TOPIC.json to compare with: expected those that a release wrote: %w", cmp.Or(err, fs.ErrNotExist))
	}
	var breaks []Break
	for _, file := range files {
		topic := strings.TrimSuffix(file, path.Ext(file))
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		var before Schema
		if err := json.Unmarshal(text, &before); err != nil {
			return nil, fmt.Errorf("schema: %s: expected a schema as events schema prints it: %w", file, err)
		}
		if s := now[topic]; s != nil {
			breaks = append(breaks, Compare(topic, &before, s)...)
			continue
		}
		if base, version := split(topic); !slices.ContainsFunc(files, func(f string) bool {
			b, v := split(strings.TrimSuffix(f, path.Ext(f)))
			return b == base && v > version
		}) {
			breaks = append(breaks, Break{
				Topic: topic, Rule: "topic removed", Do: "read it for one more release, beside the version that follows it (messaging.Upcast)",
			})
		}
	}
	return breaks, nil
}

// split returns order.placed and 2 for order.placed.v2.
func split(topic string) (base string, version int) {
	if i := strings.LastIndex(topic, ".v"); i >= 0 {
		if n, err := strconv.Atoi(topic[i+2:]); err == nil {
			return topic[:i], n
		}
	}
	return topic, 0
}

type comparison struct {
	topic  string
	breaks []Break
	seen   map[pair]bool // references followed so far: types may contain themselves
}

// A pair is a reader's and a writer's schema, or an old and a new one.
type pair struct{ a, b *Schema }

// resolve follows the references of p. seen reports whether it has done so before.
func (c *comparison) resolve(roots, p pair) (to pair, seen bool) {
	to = pair{resolve(roots.a, p.a), resolve(roots.b, p.b)}
	if to != p {
		seen, c.seen[to] = c.seen[to], true
	}
	return to, seen
}

func (c *comparison) found(field, who, rule, do string) {
	if do == "" {
		base, version := split(c.topic)
		do = fmt.Sprintf("leave it and add an optional field, or publish %s.v%d and read this one through messaging.Upcast", base, version+1)
	}
	c.breaks = append(c.breaks, Break{c.topic, field, who, rule, do})
}

// reads finds what p.b may write that p.a does not accept.
func (c *comparison) reads(roots, p pair, field, who string) {
	p, seen := c.resolve(roots, p)
	if seen {
		return
	}
	r, w := p.a, p.b
	if len(r.Type) > 0 && len(w.Type) == 0 {
		c.found(field, who, "any value is written, expected "+strings.Join(r.Type, " or "), "")
		return
	}
	for _, t := range w.Type {
		if len(r.Type) > 0 && !slices.Contains(r.Type, t) && (t != "integer" || !slices.Contains(r.Type, "number")) {
			if c.found(field, who, fmt.Sprintf("%s is written, expected %s", t, strings.Join(r.Type, " or ")), ""); t != "null" {
				return
			}
		}
	}
	if r.Format != "" && r.Format != w.Format || r.Encoding != w.Encoding && len(r.Type) > 0 {
		c.found(field, who, fmt.Sprintf("format %s is written, expected %s",
			cmp.Or(w.Format, w.Encoding, "none"), cmp.Or(r.Format, r.Encoding, "none")), "")
	}
	if r.Enum != nil && (w.Enum == nil || slices.ContainsFunc(w.Enum, func(v any) bool {
		return !slices.ContainsFunc(r.Enum, func(known any) bool { return reflect.DeepEqual(v, known) })
	})) {
		c.found(field, who, fmt.Sprintf("other values than %v are written", r.Enum), "")
	}
	c.limits(r, w, field, who)
	for _, name := range r.Required {
		if !slices.Contains(w.Required, name) {
			c.found(join(field, name), who, "a required field may be missing", "")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Properties)) {
		if written := cmp.Or(w.Properties[name], w.Additional); written != nil {
			c.reads(roots, pair{r.Properties[name], written}, join(field, name), who)
		}
	}
	if r.Additional != nil {
		for _, name := range slices.Sorted(maps.Keys(w.Properties)) {
			if r.Properties[name] == nil {
				c.reads(roots, pair{r.Additional, w.Properties[name]}, join(field, name), who)
			}
		}
		if w.Additional != nil {
			c.reads(roots, pair{r.Additional, w.Additional}, field+"{}", who)
		}
	}
	if r.Items != nil && w.Items != nil {
		c.reads(roots, pair{r.Items, w.Items}, field+"[]", who)
	}
}

// limits finds numbers, lengths and counts that w may write and r does not accept.
func (c *comparison) limits(r, w *Schema, field, who string) {
	for _, l := range []struct {
		name        string
		read, write json.Number
		least       bool
	}{
		{"minimum", r.Minimum, w.Minimum, true},
		{"maximum", r.Maximum, w.Maximum, false},
		{"minLength", r.MinLength, w.MinLength, true},
		{"maxLength", r.MaxLength, w.MaxLength, false},
		{"minItems", r.MinItems, w.MinItems, true},
		{"maxItems", r.MaxItems, w.MaxItems, false},
	} {
		read, ok := new(big.Rat).SetString(string(l.read))
		if !ok {
			continue
		}
		write, ok := new(big.Rat).SetString(string(l.write))
		if !ok || l.least && write.Cmp(read) < 0 || !l.least && write.Cmp(read) > 0 {
			c.found(field, who, fmt.Sprintf("%s %s is written, expected %s", l.name, cmp.Or(string(l.write), "none"), l.read), "")
		}
	}
}

// numbers finds changes that break the binary format of protobuf.
func (c *comparison) numbers(roots, p pair, field string) {
	p, seen := c.resolve(roots, p)
	if seen {
		return
	}
	before, now := p.a, p.b
	if !slices.Equal(before.Type, now.Type) { // reads has reported that
		return
	}
	for _, name := range slices.Sorted(maps.Keys(before.Properties)) {
		b, n, at := before.Properties[name], now.Properties[name], join(field, name)
		switch {
		case n == nil && b.Number != 0 && !reserved(now, b.Number):
			c.found(at, "", fmt.Sprintf("field %d removed and free for another meaning", b.Number), fmt.Sprintf("add to the message: reserved %d;", b.Number))
		case n == nil:
		case b.Number != n.Number:
			c.found(at, "", fmt.Sprintf("field number was %d, is %d", b.Number, n.Number), "")
		case b.Oneof != n.Oneof:
			c.found(at, "", fmt.Sprintf("oneof was %s, is %s", cmp.Or(b.Oneof, "none"), cmp.Or(n.Oneof, "none")), "")
		default:
			c.numbers(roots, pair{b, n}, at)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.Values)) {
		if n, ok := now.Values[name]; !ok || n != before.Values[name] {
			c.found(field, "", fmt.Sprintf("value %s = %d removed or changed", name, before.Values[name]), "")
		}
	}
	if before.Items != nil && now.Items != nil {
		c.numbers(roots, pair{before.Items, now.Items}, field+"[]")
	}
	if before.Additional != nil && now.Additional != nil {
		c.numbers(roots, pair{before.Additional, now.Additional}, field+"{}")
	}
}

func reserved(s *Schema, number int32) bool {
	return slices.ContainsFunc(s.Reserved, func(r [2]int32) bool { return r[0] <= number && number <= r[1] })
}

func resolve(root, s *Schema) *Schema {
	switch name, def := strings.CutPrefix(s.Ref, "#/$defs/"); {
	case s.Ref == "#":
		return root
	case def && root.Defs[name] != nil:
		return root.Defs[name]
	}
	return s
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}
