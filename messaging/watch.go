package messaging

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// watchInterval is how often the brokers' connections are looked at; that asks the driver only, not the network.
const watchInterval = time.Second

// worksAfter is how long a subscription runs before it counts as one that works although nothing has come: longer than a
// driver tries to join the group.
const worksAfter = 15 * time.Second

// A trouble tells the log once that a subscription is lost, however often it is tried again, and once that it is back.
type trouble struct {
	topic string
	log   *slog.Logger

	mu    sync.Mutex
	since time.Time // zero: there is none
	last  string    // error
	stop  func() bool
}

// watch returns deliver for the next try.
func (s *trouble) watch(ctx context.Context, deliver func(driver.Delivery)) func(driver.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return deliver
	}
	s.stop = time.AfterFunc(worksAfter, func() { s.back(ctx) }).Stop
	first := true
	return func(d driver.Delivery) {
		if first {
			first = false
			s.back(ctx)
		}
		deliver(d)
	}
}

func (s *trouble) back(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return
	}
	s.stop()
	s.log.InfoContext(ctx, "subscription is back", "topic", s.topic, "away", time.Since(s.since).Round(time.Second))
	s.since, s.last = time.Time{}, ""
}

// end ends the watch: the service stops.
func (s *trouble) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
}

// lost is told why a try ended.
func (s *trouble) lost(ctx context.Context, err error, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		s.since = time.Now()
	} else {
		s.stop()
	}
	if err.Error() != s.last { // a deletion may be followed by a right that is missing
		s.last = err.Error()
		s.log.ErrorContext(ctx, "subscription lost", "topic", s.topic, "error", err, "again_in", again)
	}
}

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
