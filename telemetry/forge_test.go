package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
)

// forgeries are texts that try to end a record, to begin another, or to hide a part of one.
func forgeries() []string {
	return []string{
		"plain", "", " ", "a=b", `"`, `\`, `\n`, "a\nb", "a\r\nb", "\r", "\x00", "\x1b[2K\x1b[1A", "\x7f", "\u0085", "\u009b2J", "\u2028", "\u2029", "\u202e",
		"\u2066x\u2069", "\u200b", "\ufeff", "\xff", "\xed\xa0\x80", "\xc0\x8a", "\ufffd", "é世😀", "\U000e0041", "a\vb\fc",
		"\n12:00:00.000 ERROR orders forged", "\ntime=2026-01-01T00:00:00Z level=ERROR msg=forged", "\"}\n{\"level\":\"ERROR\",\"msg\":\"forged\"}",
		"x level=ERROR msg=forged", "\tb\t", "a\x1b]8;;http://h\x07b", "trace_id", "service", "level",
	}
}

// attributes are the ways in which a text gets into a record.
func attributes(key, text string) []slog.Attr {
	return []slog.Attr{
		slog.String(key, text), slog.Any(key, errors.New(text)), slog.Group(key, slog.String(key, text)),
		slog.Any(key, map[string]any{key: []string{text}}), slog.Any(key, json.RawMessage(mustJSON(text))), slog.Any(key, []byte(text)), slog.Any(key, forged(text)),
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// forged shows itself by its text, whatever that is.
type forged string

func (f forged) LogValue() slog.Value { return slog.StringValue(string(f)) }

// FuzzRecord: whatever stands in a record, it is one line (for people, one line and others that are indented below it), nothing in it is
// obeyed by a terminal, and what reads it back gets what was logged.
func FuzzRecord(f *testing.F) {
	for _, text := range forgeries() {
		f.Add(text, text, text)
		f.Add("message", "key", text)
		f.Add("message", text, "value")
	}
	f.Fuzz(func(t *testing.T, message, key, text string) {
		for _, format := range []string{"json", "text", "console"} {
			for i, attr := range attributes(key, text) {
				line := logged(t, format, message, key, attr)
				shown := strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "")
				if format == "console" {
					shown = strings.ReplaceAll(shown, "\n    ", "")
				}
				if !strings.HasSuffix(line, "\n") || !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%s, attribute %d: not one line of what can be seen: %q", format, i, line)
				}
				switch format {
				case "json":
					readJSON(t, line, message, key, text, i)
				case "text":
					readText(t, line, message, key, text, i)
				}
			}
		}
	})
}

// logged is the record that a handler with a group and an attribute of that key writes.
func logged(t *testing.T, format, message, key string, attr slog.Attr) string {
	t.Helper()
	var out bytes.Buffer
	h, err := newLogHandler("orders", LogOptions{Output: &out, Format: format, Level: slog.LevelInfo})
	if err != nil {
		t.Fatal(err)
	}
	slog.New(h).With(key+"0", "with").WithGroup(key).LogAttrs(context.Background(), slog.LevelInfo, message, attr)
	return out.String()
}

// valid is s as JSON can have it.
func valid(s string) string { return string([]rune(s)) }

func readJSON(t *testing.T, line, message, key, text string, kind int) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("no JSON: %v: %q", err, line)
	}
	if got["msg"] != valid(message) || got["level"] != "INFO" || got["service"] != "orders" {
		t.Errorf("%q of %q says msg %q, level %v, service %v", line, message, got["msg"], got["level"], got["service"])
	}
	inner := got
	if key != "" {
		group, ok := got[ownKey(valid(key))].(map[string]any)
		if !ok && key != "msg_" && valid(key) == key {
			t.Errorf("no group %q in %q", key, line)
		}
		inner = group
	}
	if kind == 0 && key != "" && inner != nil && inner[valid(key)] != valid(text) {
		t.Errorf("%q has %q, want %q", line, inner[valid(key)], text)
	}
}

// readText reads a line of key=value, each of them a word or quoted.
func readText(t *testing.T, line, message, key, text string, kind int) {
	t.Helper()
	var pairs [][2]string
	for rest := strings.TrimSuffix(line, "\n"); rest != ""; {
		var name, value string
		name, rest = word(t, line, rest, "=")
		value, rest = word(t, line, rest, " ")
		pairs = append(pairs, [2]string{name, value})
	}
	if len(pairs) < 5 {
		t.Fatalf("%d pairs in %q", len(pairs), line)
	}
	names := ""
	for _, p := range pairs[:4] {
		names += p[0] + " "
	}
	if names != "time level msg service " || pairs[2][1] != message || pairs[1][1] != "INFO" {
		t.Errorf("%q begins with %q", line, pairs[:4])
	}
	last := pairs[len(pairs)-1]
	if kind < 2 && (last[1] != text || last[0] != ownKey(joined(key, key))) {
		t.Errorf("%q ends with %q, want %q", line, last, text)
	}
	if len(pairs) != 6 {
		t.Errorf("%q has %d pairs, want 6: %q", line, len(pairs), pairs)
	}
}

func joined(group, key string) string {
	if group == "" {
		return key
	}
	return group + "." + key
}

// word takes a word or a quoted text from the beginning of rest, up to end.
func word(t *testing.T, line, rest, end string) (got, after string) {
	t.Helper()
	if strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("a quote in %q does not end", line)
		}
		got, _ = strconv.Unquote(quoted)
		after = rest[len(quoted):]
		if after != "" && !strings.HasPrefix(after, end) {
			t.Fatalf("%q follows a quoted text in %q", after, line)
		}
		return got, strings.TrimPrefix(after, end)
	}
	got, after, _ = strings.Cut(rest, end)
	return got, after
}

// TestExportedTextIsVisible: what a collector gets has lines, where a text has them, and nothing else that a terminal obeys.
func TestExportedTextIsVisible(t *testing.T) {
	t.Parallel()
	h := newExportHandler(slog.LevelInfo, resource.Empty())
	for _, text := range forgeries() {
		var records []logRecord
		for _, attr := range attributes("k"+text, text) {
			record := slog.Record{Message: text, Level: slog.LevelInfo}
			record.AddAttrs(attr)
			records = append(records, logRecord{bridge: h.bridge, record: record})
		}
		for _, r := range h.sink.convert(records) {
			all := r.Body().String()
			r.WalkAttributes(func(a attribute.KeyValue) bool {
				all += string(a.Key) + "=" + fmt.Sprint(a.Value.AsInterface())
				return true
			})
			if strings.ContainsFunc(all, func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune("\n\t", r) }) {
				t.Errorf("a collector gets %q of %q", all, text)
			}
		}
	}
}
