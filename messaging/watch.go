package messaging

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// watchInterval is how often the brokers' connections are looked at; that asks the driver only, not the network.
const watchInterval = time.Second

// A link is the connection to a broker, as the log knows it.
type link struct {
	setting string // which names the broker
	health  driver.HealthReporter
	lost    time.Time // zero: it is up
}

// watch says once when a broker is lost and once when it is back.
func (b *bus) watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		b.mu.Lock()
		links := slices.Clone(b.links)
		b.mu.Unlock()
		for _, l := range links {
			l.look(ctx, b.app.Logger())
		}
	}
}

func (l *link) look(ctx context.Context, log *slog.Logger) {
	err := l.health.Healthy()
	switch {
	case err != nil && l.lost.IsZero():
		l.lost = time.Now()
		log.WarnContext(ctx, "broker lost: events wait until it is back", "setting", l.setting, "error", err)
	case err == nil && !l.lost.IsZero():
		log.InfoContext(ctx, "broker is back", "setting", l.setting, "away", time.Since(l.lost).Round(time.Second))
		l.lost = time.Time{}
	}
}
