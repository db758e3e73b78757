package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/redact"
)

const dim, red, yellow, cyan = "2", "31", "33", "36" // colours of a terminal, by SGR code

// consoleHandler writes records for people: one short line each, which ends with the beginning of
// the trace id. Texts of several lines, such as stacks, are indented below it. Control characters
// are escaped. With logfmt it writes the format of slog.TextHandler, with the full ids of the span.
type consoleHandler struct {
	service string
	opts    LogOptions
	colour  bool
	logfmt  bool
	mu      *sync.Mutex
	group   string      // prefix of the keys, "a.b."
	attrs   []slog.Attr // of With, with their groups in their keys
}

func newConsoleHandler(service string, opts LogOptions, colour bool) *consoleHandler {
	return &consoleHandler{service: service, opts: opts, colour: colour, mu: new(sync.Mutex)}
}

func (h *consoleHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.opts.Level.Level()
}

func (h *consoleHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		next.attrs = append(next.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &next
}

func (h *consoleHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	return &next
}

func (h *consoleHandler) Handle(ctx context.Context, r slog.Record) error {
	var line, below bytes.Buffer
	if h.logfmt {
		line.WriteString("time=" + r.Time.Format("2006-01-02T15:04:05.000Z07:00") + " level=" + r.Level.String())
		h.pair(&line, slog.MessageKey, r.Message)
		h.pair(&line, "service", h.service)
	} else {
		h.head(&line, &below, r)
	}
	for _, a := range h.attrs {
		h.attr(&line, &below, "", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		h.attr(&line, &below, h.group, a)
		return true
	})
	switch sc := trace.SpanContextFromContext(ctx); {
	case !sc.IsValid():
	case h.logfmt:
		h.pair(&line, "trace_id", sc.TraceID().String())
		h.pair(&line, "span_id", sc.SpanID().String())
	default:
		line.WriteString(" " + h.paint(dim, "trace="+sc.TraceID().String()[:8]))
	}
	line.WriteByte('\n')
	line.Write(below.Bytes())
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.opts.Output.Write(line.Bytes())
	return err
}

func (h *consoleHandler) head(line, below *bytes.Buffer, r slog.Record) {
	at, level, service := r.Time.Format("15:04:05.000"), fmt.Sprintf("%-5s", r.Level), fmt.Sprintf("%-20s", h.service)
	message, more, _ := strings.Cut(r.Message, "\n")
	fmt.Fprintf(line, "%s %s %s %s", h.paint(dim, at), h.paint(levelColour(r.Level), level), h.paint(cyan, service), redact.Visible(message, "\t"))
	indent(below, more)
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return red
	case l >= slog.LevelWarn:
		return yellow
	case l < slog.LevelInfo:
		return dim
	}
	return ""
}

func (h *consoleHandler) paint(colour, text string) string {
	if !h.colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// attr writes " key=value", or the value below the line when it has several lines.
func (h *consoleHandler) attr(line, below *bytes.Buffer, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			h.attr(line, below, group, member)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := v.String()
	if v.Kind() == slog.KindDuration {
		text = v.Duration().Round(time.Microsecond).String()
	}
	key := group + a.Key
	if h.logfmt {
		key = ownKey(key)
	} else if strings.Contains(text, "\n") {
		indent(below, text)
		return
	}
	h.pair(line, key, text)
}

func (h *consoleHandler) pair(line *bytes.Buffer, key, text string) {
	line.WriteString(" " + h.paint(dim, quoteOdd(key)+"=") + quoteOdd(text))
}

// quoteOdd quotes a text that is not one visible word.
func quoteOdd(text string) string {
	odd := func(r rune) bool { return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if text == "" || !utf8.ValidString(text) || strings.ContainsFunc(text, odd) {
		return strconv.Quote(text)
	}
	return text
}

func indent(below *bytes.Buffer, text string) {
	for l := range strings.Lines(text) {
		below.WriteString("    " + redact.Visible(strings.TrimRightFunc(l, unicode.IsSpace), "\t") + "\n")
	}
}

// colourful reports whether w is a terminal and NO_COLOR is not set.
func colourful(w io.Writer, noColor string) bool { return noColor == "" && isTerminal(w) }
