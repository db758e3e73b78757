package outside

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
)

// TestParts: a section, a second consumer group of one service and a broker, all of this module.
func TestParts(t *testing.T) {
	var audit Audit
	var handled atomic.Int64
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{
		"broker_url": "pigeon:loft", "audit_actions": "delete,drop",
	}}, kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
		if err := audit.Watch(app); err != nil {
			return err
		}
		p, err := messaging.NewPublisher(app, Actions)
		if err != nil {
			return err
		}
		app.Go("act", func(ctx context.Context) error {
			for _, name := range []string{"read", "drop", "write", "delete"} {
				if err := p.PublishNow(ctx, "k", Action{name}); err != nil {
					return err
				}
			}
			return nil
		})
		return messaging.Subscribe(app, Actions, func(context.Context, *sql.Tx, messaging.Event[Action]) error {
			handled.Add(1)
			return nil
		}, nil)
	}})
	kaptartest.Eventually(t, "both groups have handled all", func() error {
		if kept := audit.Kept(); !slices.Equal(kept, []string{"drop", "delete"}) || handled.Load() != 4 {
			return fmt.Errorf("the audit kept %v, the service handled %d", kept, handled.Load())
		}
		return nil
	})
	if n := len(sys.Events(Actions.Name)); n != 0 {
		t.Errorf("%d events went to the test's own broker", n)
	}
}

// TestCommand: a command that this module adds to a program, with its arguments and exit code.
func TestCommand(t *testing.T) {
	greet := kaptar.Command{Name: "greet", Help: "greet somebody", Run: func(_ context.Context, call *kaptar.Call) int {
		fmt.Fprintln(call.Stdout, "hello", call.Args)
		return 3
	}}
	var out bytes.Buffer
	program := kaptar.Program{Services: []kaptar.Service{{Name: "store"}}, Commands: []kaptar.Command{greet}}
	if code := program.Main([]string{"greet", "ada", "--loud"}, &out, &out); code != 3 || out.String() != "hello [ada --loud]\n" {
		t.Errorf("greet = %d with %q, want 3 with hello [ada --loud]", code, &out)
	}
}
