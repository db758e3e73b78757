package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"
)

func TestConsole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := newConsoleHandler("orders", LogOptions{Output: &out, Level: slog.LevelInfo}, false)
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 0xcd, 0xef, 0x01, 5: 1}, SpanID: trace.SpanID{1},
	}))
	record := slog.NewRecord(time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), slog.LevelWarn, "not sent", 0)
	record.AddAttrs(slog.String("to", "ada lovelace"), slog.Duration("after", 1500*time.Millisecond), slog.Any("error", errors.New("no route")),
		slog.Group("g", slog.Int("n", 1)), slog.String("stack", "one\n\ttwo\n"), slog.Attr{})
	if err := h.WithAttrs([]slog.Attr{slog.Bool("again", true)}).WithGroup("mail").Handle(ctx, record); err != nil {
		t.Fatal(err)
	}
	want := `03:04:05.006 WARN  orders               not sent again=true mail.to="ada lovelace" mail.after=1.5s mail.error="no route" mail.g.n=1 trace=abcdef01` +
		"\n    one\n    \ttwo\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	if h.Enabled(t.Context(), slog.LevelDebug) || !h.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("the level is not kept")
	}
}

// What a client sends must not move the cursor, change colours or look like a record of its own.
func TestConsoleShowsControlCharacters(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(newConsoleHandler("orders", LogOptions{Output: &out, Level: slog.LevelInfo}, false))
	log.Info("a\x1b[2Jb\r\n12:00:00.000 INFO  forged", "p\x1ba", "/x\x1b[31m", "more", "1\n\x1b]0;title\a\n2", "c1", "\u009b1m", "bad", "\xff", "lines", "\xff\n")
	text := out.String()
	if !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\a\r\u009b") || strings.Contains(text, "\n12:00") {
		t.Errorf("control characters came through: %q", text)
	}
	for _, want := range []string{`a\x1b[2Jb`, "\n    12:00:00.000 INFO  forged\n", `"p\x1ba"="/x\x1b[31m"`, `    \x1b]0;title\a`, `c1="\u009b1m"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

func TestConsoleColours(t *testing.T) {
	t.Parallel()
	for colour, want := range map[bool]bool{true: true, false: false} {
		var out bytes.Buffer
		log := slog.New(newConsoleHandler("orders", LogOptions{Output: &out, Level: slog.LevelInfo}, colour))
		log.ErrorContext(context.Background(), "x", "k", "v")
		if got := strings.Contains(out.String(), "\x1b["); got != want {
			t.Errorf("colour %v: got %q", colour, out.String())
		}
	}
	if colourful(os.Stdin, "1") || colourful(new(bytes.Buffer), "") {
		t.Error("colours where there is no terminal, or although NO_COLOR is set")
	}
	for leads, want := range map[leadsToTerminal]bool{true: true, false: false} {
		if got := colourful(leads, ""); got != want {
			t.Errorf("colours where IsTerminal is %v: got %v", leads, got)
		}
	}
	if colourful(leadsToTerminal(true), "1") {
		t.Error("colours where IsTerminal is true, although NO_COLOR is set")
	}
}

// leadsToTerminal is a writer that leads to a terminal, or does not.
type leadsToTerminal bool

func (leadsToTerminal) Write(b []byte) (int, error) { return len(b), nil }
func (l leadsToTerminal) IsTerminal() bool          { return bool(l) }
