package messaging_test

import (
	"context"
	"database/sql"
	"io"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/messaging"
)

// TestTheInboxRemembersAsLongAsTheBroker: else the service does not start, and says what to do.
func TestTheInboxRemembersAsLongAsTheBroker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query, retention string
		autoAck          bool
		want             string
	}{
		"as long":        {query: "?max_age=168h"},
		"shorter":        {query: "?max_age=169h", want: "order.placed.v1 for 169h0m0s and the inbox remembers them for 168h0m0s"},
		"next step":      {query: "?max_age=169h", want: "set inbox.retention to 169h0m0s or more"},
		"set":            {query: "?max_age=169h", retention: "169h"},
		"for ever":       {query: "?max_age=169h", retention: "0s"},
		"without inbox":  {query: "?max_age=169h", autoAck: true},
		"below nothing":  {retention: "-1s", want: "inbox.retention is -1s: expected a duration"},
		"set to shorter": {query: "?max_age=24h", retention: "23h", want: "inbox.retention to 24h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
				if c.autoAck {
					return messaging.SubscribeAutoAck(app, orders, func(context.Context, messaging.Event[placed]) error { return nil }, nil)
				}
				return messaging.Subscribe(app, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error { return nil }, nil)
			}}
			values := map[string]string{"broker_url": startBroker(t).url() + c.query}
			if c.retention != "" {
				values["inbox.retention"] = c.retention
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := kaptar.Run(ctx, &kaptar.Options{
				Sources: config.Sources{Defaults: settings(t.TempDir(), values, []kaptar.Service{service})},
				Log:     io.Discard, Ready: func([]discovery.Instance) { cancel() },
			}, service)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error: got %v, want %q", err, c.want)
			}
		})
	}
}
