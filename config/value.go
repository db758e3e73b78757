package config

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kaptar/kaptar/internal/redact"
)

// Value is one effective setting.
type Value struct {
	Service string // of the target, "" for process-wide settings
	Key     string // dotted, without the service
	Text    string // as it would be written in a source, without passwords in URLs; a Secret that is not a URL is redacted
	Origin  string // "config.yml:12", ".env:3", "environment FOO", "flag --foo", DefaultsOrigin, "default" (the struct tag), "set in code" or "not set"
	Secret  bool
	Live    bool
}

// Values returns all values in effect, sorted by service and key.
func (c *Config) Values() []Value {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Value, len(c.slots))
	for i, s := range c.slots {
		out[i] = s.show()
	}
	return sortValues(out)
}

// AnyText reports whether match is true for the text, unredacted, of any value in effect.
func (c *Config) AnyText(match func(text string) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.slots, func(s *slot) bool { return match(s.raw()) })
}

// sortValues sorts by service and key, and keeps the first of each.
func sortValues(values []Value) []Value {
	order := func(a, b Value) int { return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Key, b.Key)) }
	slices.SortStableFunc(values, order)
	return slices.CompactFunc(values, func(a, b Value) bool { return order(a, b) == 0 })
}

func (s *slot) show() Value {
	return Value{Service: s.target.Service, Key: s.key, Text: s.text(), Origin: s.origin, Secret: s.secret, Live: s.live != nil}
}

// common returns Values, but with one Value without a service where all services have the same.
func (c *Config) common() []Value {
	c.mu.Lock()
	differs, several, first := map[string]bool{}, map[string]bool{}, map[string]*slot{}
	for _, s := range c.slots {
		f := first[s.key]
		if f == nil {
			f, first[s.key] = s, s
		}
		differs[s.key] = differs[s.key] || s.target.Service == "" || s.origin != f.origin || s.raw() != f.raw()
		several[s.key] = several[s.key] || s.target.Service != f.target.Service
	}
	c.mu.Unlock()
	values := c.Values()
	for i, v := range values {
		if several[v.Key] && !differs[v.Key] {
			values[i].Service = ""
		}
	}
	return sortValues(values)
}

// text returns the value for display, without secrets.
func (s *slot) text() string {
	text := s.raw()
	switch name := s.key[strings.LastIndex(s.key, ".")+1:]; {
	case s.value.Kind() != reflect.String || text == "":
	case s.secret:
		return showSecret(name, text)
	case strings.HasSuffix(name, "url") || strings.HasSuffix(name, "endpoint") || strings.HasSuffix(name, "host"):
		return redact.URL(text)
	}
	return showText(s.value)
}

// raw returns the value unredacted, for comparisons.
func (s *slot) raw() string {
	if s.value.Kind() == reflect.String {
		return s.value.String()
	}
	return showText(s.value)
}

// Print writes a line "key = text  # origin" for each value, in aligned columns. Secrets are shown as
// in Value.Text. The key of a service has "services.<name>." in front, unless all services have the
// same value from the same origin. Live values are marked. A text with line ends or control
// characters is quoted.
func (c *Config) Print(w io.Writer) error {
	values := c.common()
	keys, texts := make([]string, len(values)), make([]string, len(values))
	keyWidth, textWidth := 0, 0
	for i, v := range values {
		keys[i], texts[i] = redact.Visible(ownKey(v.Service, v.Key), ""), v.Text
		if redact.Visible(v.Text, "") != v.Text {
			texts[i] = fmt.Sprintf("%q", v.Text)
		}
		keyWidth = max(keyWidth, utf8.RuneCountInString(keys[i]))
		textWidth = max(textWidth, min(utf8.RuneCountInString(texts[i]), 40)) // a long value must not push all origins away
	}
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, "%-*s = %-*s  # %s", keyWidth, keys[i], textWidth, texts[i], redact.Visible(v.Origin, ""))
		if v.Live {
			b.WriteString(", live")
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
