package local

import (
	"context"
	"io"
	"log/slog"
)

// SourcesOf is what the command config shows, and BesideOf what other commands use.
var (
	SourcesOf = (*Options).sources
	BesideOf  = (*Options).beside
)

// StartBroker starts an embedded broker with its files in dir, which logs to w.
func StartBroker(ctx context.Context, dir, address string, w io.Writer) (url string, stop func(), err error) {
	e := &embedded{listen: address, password: "secret", dir: dir, free: io.NopCloser(nil), log: slog.New(slog.NewTextHandler(w, nil))}
	if err := e.start(ctx); err != nil {
		return "", nil, err
	}
	return "nats://" + brokerUser + ":secret@" + address, e.stop, nil
}
