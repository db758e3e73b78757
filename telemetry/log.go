package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"
)

func newLogHandler(service string, opts LogOptions) (slog.Handler, error) {
	format := opts.Format
	if format == "" {
		format = "json"
		if isTerminal(opts.Output) {
			format = "console"
		}
	}
	switch format {
	case "json":
		return newJSONHandler(service, opts), nil
	case "console":
		return newConsoleHandler(service, opts, colourful(opts.Output, os.Getenv("NO_COLOR"))), nil
	case "text":
		h := slog.NewTextHandler(opts.Output, &slog.HandlerOptions{Level: opts.Level}).
			WithAttrs([]slog.Attr{slog.String("service", service)})
		return &textHandler{root: h, Handler: h}, nil
	}
	return nil, fmt.Errorf("telemetry: unknown log format %q; known are console, text and json", opts.Format)
}

// isTerminal reports whether people read what is written to w. A writer that only
// leads to a terminal says so by a method IsTerminal.
func isTerminal(w io.Writer) bool {
	if t, ok := w.(interface{ IsTerminal() bool }); ok {
		return t.IsTerminal()
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ownKey returns the name for an attribute at the top level of a record. The handler's own keys
// stand there already, and many readers of logs refuse a key that comes twice, or believe the last.
func ownKey(key string) string {
	switch key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, "service", "trace_id", "span_id":
		return key + "_"
	}
	return key
}

func ownKeys(attrs []slog.Attr) []slog.Attr {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		attrs[i].Key = ownKey(attrs[i].Key)
	}
	return attrs
}

// textHandler is slog's, with trace_id and span_id at the top level of each record: inside a group
// the attributes of the group are given again. Keys are those of ownKey.
type textHandler struct {
	slog.Handler
	root  slog.Handler // before the first group
	inner []func(slog.Handler) slog.Handler
}

func (h *textHandler) Handle(ctx context.Context, r slog.Record) error {
	if len(h.inner) == 0 { // not in a group
		plain := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
		r.Attrs(func(a slog.Attr) bool {
			a.Key = ownKey(a.Key)
			plain.AddAttrs(a)
			return true
		})
		r = plain
	}
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return h.Handler.Handle(ctx, r)
	}
	ids := []slog.Attr{slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String())}
	if len(h.inner) == 0 {
		r.AddAttrs(ids...)
		return h.Handler.Handle(ctx, r)
	}
	out := h.root.WithAttrs(ids)
	for _, f := range h.inner {
		out = f(out)
	}
	return out.Handle(ctx, r)
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	if len(h.inner) == 0 {
		attrs = ownKeys(attrs)
	}
	return h.with(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) }, len(h.inner) > 0)
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(func(next slog.Handler) slog.Handler { return next.WithGroup(name) }, true)
}

func (h *textHandler) with(f func(slog.Handler) slog.Handler, inGroup bool) slog.Handler {
	next := &textHandler{Handler: f(h.Handler), root: h.root, inner: h.inner}
	if inGroup {
		next.inner = append(slices.Clone(next.inner), f)
	} else {
		next.root = next.Handler
	}
	return next
}

// fanout hands each record to two handlers: the local log and the exporter.
type fanout [2]slog.Handler

func (f fanout) Enabled(ctx context.Context, l slog.Level) bool {
	return f[0].Enabled(ctx, l) || f[1].Enabled(ctx, l)
}

func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	var errs [2]error
	for i, h := range f {
		if h.Enabled(ctx, r.Level) {
			errs[i] = h.Handle(ctx, r.Clone())
		}
	}
	return errors.Join(errs[:]...)
}

func (f fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fanout{f[0].WithAttrs(attrs), f[1].WithAttrs(attrs)}
}

func (f fanout) WithGroup(name string) slog.Handler {
	return fanout{f[0].WithGroup(name), f[1].WithGroup(name)}
}
