package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"os"

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
		h := newConsoleHandler(service, opts, false)
		h.logfmt = true
		return h, nil
	}
	return nil, fmt.Errorf("telemetry: unknown log format %q; known are console, text and json", opts.Format)
}

// isTerminal reports whether w is a terminal, or says so itself.
func isTerminal(w io.Writer) bool {
	if t, ok := w.(interface{ IsTerminal() bool }); ok {
		return t.IsTerminal()
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ownKey returns the name for an attribute at the top level of a record. The handler's own keys are
// there already, and many readers of logs refuse a key that comes twice, or take the last.
func ownKey(key string) string {
	switch key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, "service", "trace_id", "span_id":
		return key + "_"
	}
	return key
}
