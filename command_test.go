package kaptar_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

// peek is a command that tells what its apps are.
func peek(t *testing.T) kaptar.Command {
	return kaptar.Command{Name: "peek", Help: "peek", Run: func(ctx context.Context, call *kaptar.Call) int {
		if err := call.Flags.Parse(call.Args); err != nil {
			fmt.Fprintln(call.Stderr, err)
			return 2
		}
		err := call.Apps(ctx, call.Flags.Args(), func(_ context.Context, apps []*kaptar.App) error {
			for _, a := range apps {
				store, err := a.Store(ctx)
				fmt.Fprintln(call.Stdout, a.Name(), a.Settings().DatabaseURL.Reveal(), a.Settings().MaxBody, a.Offline(), store == nil, err)
			}
			if len(apps) == 0 {
				return errors.New("no apps")
			}
			return nil
		})
		if err != nil {
			fmt.Fprintln(call.Stderr, err)
			return 1
		}
		return 0
	}}
}

// TestCallApps: a command sees services as their own settings make them, and nothing runs.
func TestCallApps(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte("max_body: 3MiB\nservices: {books: {database_url: \"sqlite:b.db\"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args    string
		code    int
		out     string
		stopped int
	}{
		"all":              {"peek --set database_url=sqlite:x", 0, "books sqlite:x 1MiB true true <nil>\nloans sqlite:x 1MiB true true <nil>\n", 2},
		"one":              {"peek --set services.loans.database_url=sqlite:y loans", 0, "loans sqlite:y 1MiB true true <nil>\n", 1},
		"a file":           {"peek --config " + file + " books", 0, "books sqlite:b.db 3MiB true true <nil>\n", 1},
		"flags first":      {"--config " + file + " peek --max 2MiB books", 0, "books sqlite:b.db 2MiB true true <nil>\n", 1},
		"a registry":       {"peek --set discovery_url=nats://127.0.0.1:1 --set settings_url=nats://127.0.0.1:1 loans", 0, "loans  1MiB true true <nil>\n", 1},
		"nobody":           {"peek bookz", 1, "there is no service \"bookz\": did you mean books? expected one of books, loans\n", 0},
		"a wrong setting":  {"peek --set max_body=much books", 1, "max_body", 0},
		"a failing Setup":  {"peek --set tags=fail books", 1, "kaptar: books: setup: no luck\n", 1},
		"a slow Setup":     {"peek --set tags=slow loans", 0, "loans  1MiB true true <nil>\n", 1},
		"not for commands": {"peek --split", 2, "flag provided but not defined: -split", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopped := 0
			setup := func(app *kaptar.App) error {
				app.Go("never", func(context.Context) error { t.Error("a command starts tasks"); return nil })
				app.OnStop("always", func(context.Context) error { stopped++; return nil })
				switch tags := app.Settings().Tags; {
				case slices.Equal(tags, []string{"slow"}):
					<-time.After(6 * time.Second) // a program that serves tells of it after five
				case len(tags) > 0:
					return errors.New("no luck")
				}
				app.Logger().Info("nobody wants to know")
				return nil
			}
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			most := flags.String("max", "", "largest body")
			flags.Bool("split", false, "not for commands")
			program := &kaptar.Program{
				// Both listen at one address, which matters to those that listen.
				Services: []kaptar.Service{{Name: "books", Listen: ":1", Setup: setup}, {Name: "loans", Listen: ":1", Setup: setup}}, Flags: flags,
				Commands: []kaptar.Command{peek(t)},
				Beside: func(src config.Sources, services []kaptar.Service) (config.Sources, error) {
					if len(services) != 2 {
						t.Errorf("sources of %d services, want all", len(services))
					}
					if *most != "" {
						src.Flags["max_body"] = *most
					}
					return src, nil
				},
			}
			var out bytes.Buffer
			if code := program.Main(strings.Fields(tc.args), &out, &out); code != tc.code || stopped != tc.stopped {
				t.Errorf("exit code %d, %d closed, want %d, %d\n%s", code, stopped, tc.code, tc.stopped, &out)
			}
			if got := out.String(); got != tc.out && (tc.code == 0 || !strings.Contains(got, tc.out)) {
				t.Errorf("printed %q, want %q", got, tc.out)
			}
		})
	}
	if err := new(kaptar.Call).Apps(t.Context(), nil, nil); err == nil {
		t.Error("a call of no program has apps")
	}
}
