package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Value is one effective setting.
type Value struct {
	Service string // of the target, "" for process-wide settings
	Key     string // dotted, without the service
	Text    string // as it would be written in a source; redacted for a secret, and so are passwords in URLs
	Origin  string // "config.yml:12", ".env:3", "environment FOO", "flag --foo", DefaultsOrigin, "default" (the struct tag), "set in code" or "not set"
	Secret  bool
	Live    bool
}

// Values returns every effective value, sorted by service and key. Live values are those of this moment.
func (c *Config) Values() []Value {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Value, 0, len(c.slots))
	for _, s := range c.slots {
		out = append(out, s.show())
	}
	sortValues(out)
	return slices.CompactFunc(out, func(a, b Value) bool { return a.Service == b.Service && a.Key == b.Key })
}

func sortValues(values []Value) {
	slices.SortStableFunc(values, func(a, b Value) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Key, b.Key))
	})
}

func (s *slot) show() Value {
	return Value{Service: s.service, Key: s.key, Text: showText(s.value), Origin: s.origin, Secret: s.secret, Live: s.live != nil}
}

// Print writes a line for each value: key = text  # origin. Keys and origins are aligned, secrets are redacted, a service's key has
// "services.<name>." in front, and a live value says so. A text that would break its line is quoted.
func (c *Config) Print(w io.Writer) error {
	values := c.Values()
	keys, texts := make([]string, len(values)), make([]string, len(values))
	keyWidth, textWidth := 0, 0
	for i, v := range values {
		keys[i], texts[i] = ownKey(v.Service, v.Key), v.Text
		if strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			texts[i] = fmt.Sprintf("%q", v.Text)
		}
		keyWidth = max(keyWidth, utf8.RuneCountInString(keys[i]))
		textWidth = max(textWidth, min(utf8.RuneCountInString(texts[i]), 40)) // a long value must not push all origins away
	}
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, "%-*s = %-*s  # %s", keyWidth, keys[i], textWidth, texts[i], v.Origin)
		if v.Live {
			b.WriteString(", live")
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
