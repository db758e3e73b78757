package telemetry

import (
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"

	"github.com/kaptar/kaptar/internal/redact"
)

// maxText is the length of a text in a span or a log record, and textCut ends one that was longer:
// others decide what they send us, and collectors refuse large batches.
const (
	maxText = 16 << 10
	textCut = "…"
)

// maxOutside is how much Cut leaves.
const maxOutside = 2 << 10

// Cut returns the first 2 KiB of a text from outside, such as a path, with a mark at the end if
// there was more. Log lines use it, so that clients cannot make them grow.
func Cut(text string) string {
	if len(text) <= maxOutside {
		return text
	}
	return strings.ToValidUTF8(text[:maxOutside], "\ufffd") + textCut
}

// A cleaner cuts long texts, replaces invalid UTF-8 by U+FFFD, escapes what is not visible, and
// records whether there was any. OTLP refuses a whole batch in which one text is invalid, and
// anybody can send a service such a path or header.
type cleaner struct{ bad bool }

// tidy prepares r for the export. That is not done during the call.
func (r *record) tidy() {
	var c cleaner
	r.dedupe()
	r.name, r.status.Description, r.attrs = c.text(r.name), c.text(r.status.Description), c.attrs(r.attrs)
	for i, e := range r.events {
		r.events[i].Name, r.events[i].Attributes = c.text(e.Name), c.attrs(e.Attributes)
	}
	for i, l := range r.links {
		r.links[i].Attributes = c.attrs(l.Attributes)
	}
}

// validRecords repairs the records of batch, which nobody else uses.
func validRecords(batch []sdklog.Record) []sdklog.Record {
	for i := range batch {
		r := &batch[i]
		var c cleaner
		body := c.value(r.Body())
		r.WalkAttributes(func(kv attribute.KeyValue) bool {
			c.attr(kv)
			return !c.bad
		})
		if !c.bad {
			continue
		}
		attrs := make([]attribute.KeyValue, 0, r.AttributesLen())
		r.WalkAttributes(func(kv attribute.KeyValue) bool {
			attrs = append(attrs, c.attr(kv))
			return true
		})
		r.SetBody(body)
		r.SetAttributes(attrs...)
	}
	return batch
}

func (c *cleaner) text(s string) string {
	if len(s) > maxText {
		s, c.bad = s[:maxText]+textCut, true
	}
	shown := redact.Visible(s, "\n\t") // stacks have lines
	c.bad = c.bad || shown != s
	return shown
}

func (c *cleaner) attr(a attribute.KeyValue) attribute.KeyValue {
	return attribute.KeyValue{Key: attribute.Key(c.text(string(a.Key))), Value: c.value(a.Value)}
}

// attrs returns attrs itself, or a copy if one of them is bad.
func (c *cleaner) attrs(attrs []attribute.KeyValue) []attribute.KeyValue {
	before, found := c.bad, false
	for i, a := range attrs {
		c.bad = false
		if a = c.attr(a); !c.bad {
			continue
		}
		if !found {
			attrs, found = slices.Clone(attrs), true
		}
		attrs[i] = a
	}
	c.bad = before || found
	return attrs
}

func (c *cleaner) value(v attribute.Value) attribute.Value {
	switch v.Type() {
	case attribute.STRING:
		return attribute.StringValue(c.text(v.AsString()))
	case attribute.STRINGSLICE:
		texts := v.AsStringSlice() // a copy
		for i, s := range texts {
			texts[i] = c.text(s)
		}
		return attribute.StringSliceValue(texts)
	case attribute.SLICE:
		values := v.AsSlice() // a copy
		for i, member := range values {
			values[i] = c.value(member)
		}
		return attribute.SliceValue(values...)
	case attribute.MAP:
		return attribute.MapValue(c.attrs(v.AsMap())...)
	}
	return v
}
