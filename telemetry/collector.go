package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// collector logs once when exports begin to fail, and once when all three signals work.
type collector struct {
	outage   steady.Outage
	stopping atomic.Bool // the error of Shutdown says what is lost

	mu       sync.Mutex
	failing  map[string]bool
	unwanted map[string]bool // signals without a service at the collector
}

func newCollector(endpoint string, log *slog.Logger) *collector {
	return &collector{
		outage: steady.Outage{What: "telemetry collector", Log: log,
			Attrs: []slog.Attr{slog.String("url", redact.URL(endpoint))}},
		failing: map[string]bool{}, unwanted: map[string]bool{},
	}
}

// report exports a signal, unless the collector does not take it.
func (c *collector) report(ctx context.Context, signal string, export func() error) error {
	c.mu.Lock()
	unwanted := c.unwanted[signal]
	c.mu.Unlock()
	if unwanted {
		return nil
	}
	err := export()
	if err != nil && !isUnwanted(err) && (c.stopping.Load() || errors.Is(context.Cause(ctx), context.Canceled)) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if isUnwanted(err) {
		c.unwanted[signal], err = true, nil
		c.outage.Log.LogAttrs(ctx, slog.LevelInfo,
			"the collector takes no "+signal+", so none are sent until the next start", c.outage.Attrs...)
	}
	failed := len(c.failing) > 0
	if err != nil {
		c.failing[signal] = true
	} else {
		delete(c.failing, signal)
	}
	switch {
	case len(c.failing) == 0:
		c.outage.Back(ctx)
	case !failed:
		c.outage.Lost(ctx, fmt.Errorf("%s not sent, what the queue cannot hold is dropped: %w", signal, tlsfiles.ExplainOTLP(err)))
	}
	return err
}

// isUnwanted reports whether err says that the collector has no service for a signal: UNIMPLEMENTED
// over gRPC, 404 over HTTP, for which the clients have no type.
func isUnwanted(err error) bool {
	return err != nil && (status.Code(err) == codes.Unimplemented || strings.Contains(err.Error(), "404 Not Found"))
}
