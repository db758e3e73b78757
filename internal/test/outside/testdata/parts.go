package outside

import (
	"context"
	"database/sql"
	"sync"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
)

// Settings are the section of this module: any program that imports it has them.
type Settings struct {
	AuditActions []string `config:"audit_actions" default:"delete" help:"what is kept by the audit"`
}

func init() {
	config.RegisterSection[Settings]("example.com/outside")
	drivers.Register("pigeon", openPigeons)
}

// pigeons is a broker that nobody else has: the URL pigeon:loft.
type pigeons struct{ loft *memory.Broker }

func openPigeons(context.Context, string, *drivers.Options) (drivers.Backend, error) {
	return &pigeons{memory.New()}, nil
}

// Broker makes it a backend for events.
func (p *pigeons) Broker() (driver.Broker, error) { return p.loft, nil }

// Close ends it.
func (p *pigeons) Close(ctx context.Context) error { return p.loft.Close(ctx) }

// An Action is what somebody did.
type Action struct{ Name string }

// Actions has an event for each Action.
var Actions = messaging.Topic[Action]{Name: "action.v1"}

// An Audit keeps the actions that the settings name.
type Audit struct {
	mu   sync.Mutex
	kept []string
}

// Kept returns what was kept so far.
func (a *Audit) Kept() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.kept...)
}

// Watch makes app handle all actions, in a consumer group beside whatever else the service
// subscribes to.
func (a *Audit) Watch(app *kaptar.App) error {
	keep := kaptar.SectionOf[Settings](app).AuditActions
	return messaging.Subscribe(app, Actions, func(_ context.Context, _ *sql.Tx, e messaging.Event[Action]) error {
		for _, name := range keep {
			if e.Data.Name == name {
				a.mu.Lock()
				a.kept = append(a.kept, name)
				a.mu.Unlock()
			}
		}
		return nil
	}, &messaging.SubscribeOptions{Group: app.Name() + ".audit"})
}
