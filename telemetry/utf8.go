package telemetry

import (
	"slices"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// OTLP refuses a whole batch in which one text is not UTF-8, and anybody can send a service such a
// path or header. So bad bytes become U+FFFD before a batch goes out.

// validSpans replaces those spans of batch that have a bad text.
func validSpans(batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	for i, span := range batch {
		var bad [4]bool
		var name, reason string
		var attrs []attribute.KeyValue
		name, bad[0] = validText(span.Name())
		reason, bad[1] = validText(span.Status().Description)
		attrs, bad[2] = validAttrs(span.Attributes())
		events := slices.Clone(span.Events())
		for j := range events {
			e := &events[j]
			var badName, badAttrs bool
			e.Name, badName = validText(e.Name)
			e.Attributes, badAttrs = validAttrs(e.Attributes)
			bad[3] = bad[3] || badName || badAttrs
		}
		if bad != [4]bool{} {
			stub := tracetest.SpanStubFromReadOnlySpan(span)
			stub.Name, stub.Status.Description, stub.Attributes, stub.Events = name, reason, attrs, events
			batch[i] = stub.Snapshot()
		}
	}
	return batch
}

// validRecords repairs the records of batch, which are ours alone.
func validRecords(batch []sdklog.Record) []sdklog.Record {
	for i := range batch {
		r := &batch[i]
		if body, bad := validValue(r.Body()); bad {
			r.SetBody(body)
		}
		attrs := make([]attribute.KeyValue, 0, r.AttributesLen())
		r.WalkAttributes(func(kv attribute.KeyValue) bool {
			attrs = append(attrs, kv)
			return true
		})
		if attrs, bad := validAttrs(attrs); bad {
			r.SetAttributes(attrs...)
		}
	}
	return batch
}

func validText(s string) (text string, bad bool) {
	if utf8.ValidString(s) {
		return s, false
	}
	return strings.ToValidUTF8(s, "\ufffd"), true
}

// validAttrs returns attrs itself, or a copy if one of them is bad.
func validAttrs(attrs []attribute.KeyValue) (out []attribute.KeyValue, bad bool) {
	out = attrs
	for i, a := range attrs {
		key, badKey := validText(string(a.Key))
		value, badValue := validValue(a.Value)
		if !badKey && !badValue {
			continue
		}
		if !bad {
			out, bad = slices.Clone(attrs), true
		}
		out[i] = attribute.KeyValue{Key: attribute.Key(key), Value: value}
	}
	return out, bad
}

func validValue(v attribute.Value) (out attribute.Value, bad bool) {
	switch v.Type() {
	case attribute.STRING:
		if s, bad := validText(v.AsString()); bad {
			return attribute.StringValue(s), true
		}
	case attribute.STRINGSLICE:
		texts := v.AsStringSlice() // a copy
		for i, s := range texts {
			var badText bool
			texts[i], badText = validText(s)
			bad = bad || badText
		}
		return attribute.StringSliceValue(texts), bad
	case attribute.SLICE:
		values := v.AsSlice() // a copy
		for i, member := range values {
			var badMember bool
			values[i], badMember = validValue(member)
			bad = bad || badMember
		}
		return attribute.SliceValue(values...), bad
	case attribute.MAP:
		if members, bad := validAttrs(v.AsMap()); bad {
			return attribute.MapValue(members...), true
		}
	}
	return v, false
}
