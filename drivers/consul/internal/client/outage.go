package consul

import (
	"log/slog"
	"sync"
	"time"
)

// outage makes one line of log of many attempts that fail.
type outage struct {
	mu      sync.Mutex
	log     *slog.Logger
	failing map[any]bool // who fails
	since   time.Time
}

// SetLogger says where the client tells that it waits for Consul, and that it is back. Default: nowhere.
func (c *Client) SetLogger(log *slog.Logger) {
	c.outage.mu.Lock()
	defer c.outage.mu.Unlock()
	c.outage.log = log
}

// Log returns the logger.
func (c *Client) Log() *slog.Logger {
	c.outage.mu.Lock()
	defer c.outage.mu.Unlock()
	return c.outage.logger()
}

// Failed notes that who could not do its work. The first to fail is logged.
func (c *Client) Failed(who any, err error) {
	o := &c.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failing) == 0 {
		o.since = time.Now()
		o.failing = map[any]bool{}
		o.logger().Warn("waiting for consul; what was known stands", "url", c.String(), "error", err)
	}
	o.failing[who] = true
}

// Worked notes that who did its work. The last to recover is logged.
func (c *Client) Worked(who any) { c.settle(who, true) }

// GaveUp notes that who does not try any more.
func (c *Client) GaveUp(who any) { c.settle(who, false) }

func (c *Client) settle(who any, worked bool) {
	o := &c.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.failing[who] {
		return
	}
	delete(o.failing, who)
	if len(o.failing) == 0 && worked {
		o.logger().Info("consul is back", "url", c.String(), "after", time.Since(o.since).Round(time.Millisecond))
	}
}

func (o *outage) logger() *slog.Logger {
	if o.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.log
}
