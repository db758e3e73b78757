package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	pingEvery   = 5 * time.Second
	pingAgain   = 250 * time.Millisecond // while the cluster is away
	pingTimeout = 3 * time.Second
)

var _ kgo.HookBrokerConnect = (*health)(nil)
var _ kgo.HookBrokerDisconnect = (*health)(nil)

// errLost is the cause of a call's end when the cluster was lost under it.
var errLost = errors.New("connection lost")

// health knows whether the cluster answers. A failed connection says little about a cluster of
// several brokers, so it only makes watch ask at once.
type health struct {
	nudge chan struct{}

	mu    sync.Mutex
	since time.Time
	lost  error // nil: it answers

	// ctx ends when the cluster is lost, as Publish must not wait, and is replaced later.
	ctx context.Context
	cut context.CancelCauseFunc
}

func newHealth() *health {
	h := &health{nudge: make(chan struct{}, 1)}
	h.ctx, h.cut = context.WithCancelCause(context.Background())
	return h
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *health) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		h.doubt()
	}
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (h *health) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { h.doubt() }

func (h *health) doubt() { steady.Signal(h.nudge) }

func (h *health) state() (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.lost
}

// link ends when the cluster is lost.
func (h *health) link() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ctx
}

// watch pings the cluster at intervals until ctx ends.
func (h *health) watch(ctx context.Context, ping func(context.Context) error) {
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	for {
		nudge := h.nudge
		if _, lost := h.state(); lost != nil {
			nudge = nil // its own failed connections must not trigger it
		}
		select {
		case <-timer.C:
		case <-nudge:
		case <-ctx.Done():
			return
		}
		once, cancel := context.WithTimeout(ctx, pingTimeout)
		err := ping(once)
		cancel()
		if ctx.Err() != nil {
			return
		}
		h.set(err)
		timer.Reset(pingEvery)
		if err != nil {
			timer.Reset(pingAgain)
		}
	}
}

func (h *health) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil && h.lost != nil:
		h.ctx, h.cut = context.WithCancelCause(context.Background())
	case err != nil && h.lost == nil:
		h.since = time.Now()
		h.cut(errLost)
	}
	h.lost = err
}
