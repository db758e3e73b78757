package rollout

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/kv"
)

// Exit codes of the command, beside those of package cli: 0 is for done or Healthy.
const (
	exitDegraded = 3
	exitPaused   = 4
)

// Command returns the command rollout with its subcommands start, status, list, pause, promote,
// abort and undo. more are further subcommands, such as that of package rollout/export.
//
// Exit codes: 0 done, Healthy or still in progress; 1 an error; 2 a wrong command line; 3 Degraded
// (aborted or undone); 4 Paused, which needs a decision.
func Command(more ...kaptar.Command) kaptar.Command {
	return kaptar.Command{
		Name: "rollout", Help: "Release a version of a service step by step, and take it back",
		Run: func(ctx context.Context, call *kaptar.Call) int { return run(ctx, call, more) },
	}
}

// A command is one run of it.
type command struct {
	stdout, stderr io.Writer
	name           string // of the program, as it is typed
	call           *kaptar.Call
	url            string // --store
	code           int
	backends       drivers.Set
}

func run(ctx context.Context, call *kaptar.Call, more []kaptar.Command) int {
	c := &command{call: call, stdout: call.Stdout, stderr: call.Stderr, name: cli.Program()}
	c.backends.Options.Client = "rollout"
	root := c.root(more)
	code := cli.Run(ctx, root, call.Args, call.Stdout, call.Stderr)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.backends.Close(end) // all writes are done
	return cmp.Or(code, c.code)
}

const help = `Release a version of a service beside the one that is there, step by step, and take it back.

The new version must run already, or come by --binary or --wait. The gateway, or whoever else calls
rollout.Control, then leads the release: it gives the version its share of the calls, measures both
versions, goes on when the new one is as good, and back when it is worse.

The store with the releases is that of --store, else of the settings settings_url or discovery_url,
else the embedded one of a program of package local that runs in this directory.

Exit codes: 0 done or Healthy, 1 an error, 2 a wrong command line, 3 Degraded (aborted or taken back),
4 Paused (somebody has to look).`

const examples = `  %[1]s start user-service v2 --binary ./shop-v2 --watch   on one machine, from another binary
  %[1]s start user-service v2 --plan plan.yml              by a plan of your own
  %[1]s start user-service v2 --strategy blueGreen         a preview first, all calls at once later
  %[1]s status user-service --watch                        follow it
  %[1]s promote user-service                               go on after a pause
  %[1]s abort user-service                                 all calls back to the stable version
  %[1]s undo user-service                                  back to the version before`

func (c *command) root(more []kaptar.Command) *cobra.Command {
	root := cli.New("rollout", help, examples, c.call.Flags)
	root.PersistentFlags().StringVar(&c.url, "store", "", "`URL` of the store, such as nats://localhost:4222 or consul://localhost:8500")
	root.AddCommand(c.startCommand(), c.statusCommand(), c.listCommand())
	var full bool
	promote := c.change("promote", "Go on after a pause; of a blue-green release, switch to the new version",
		func(r Release) (Release, error) { return r.Promote(time.Now(), full) })
	promote.Flags().BoolVar(&full, "full", false, "skip all steps and analyses that are left")
	root.AddCommand(promote,
		c.change("pause", "Stay at the current share until somebody promotes", func(r Release) (Release, error) { return r.Pause(time.Now()) }),
		c.change("abort", "Give all calls back to the stable version", func(r Release) (Release, error) { return r.Abort(time.Now(), "") }),
		c.change("undo", "Go back to the version before, at once", func(r Release) (Release, error) { return r.Undo(time.Now()) }))
	for _, m := range more {
		root.AddCommand(&cobra.Command{Use: m.Name, Short: m.Help, DisableFlagParsing: true, Run: func(cmd *cobra.Command, args []string) {
			c.code = m.Run(cmd.Context(), &kaptar.Call{Args: args, Stdout: c.stdout, Stderr: c.stderr})
		}})
	}
	return root
}

// change is a command that changes the release of a service.
func (c *command) change(name, short string, f func(Release) (Release, error)) *cobra.Command {
	return &cobra.Command{Use: name + " SERVICE", Short: short, Args: cli.Args, RunE: func(cmd *cobra.Command, args []string) error {
		ctx, service := cmd.Context(), args[0]
		store, resolver, err := c.open(ctx)
		if err != nil {
			return err
		}
		var versions map[string]int
		if name == "promote" || name == "undo" {
			versions, _ = listed(ctx, resolver, service) // without discovery the operator decides
		}
		_, r, err := update(ctx, store, service, func(r Release) (Release, error) {
			if r.Service == "" {
				return r, c.unknown(ctx, store, service)
			}
			next, err := f(r)
			for version, weight := range next.Weights() {
				if err == nil && weight == 100 && versions != nil && versions[version]+versions[""] == 0 {
					err = fmt.Errorf("rollout: %s: all calls would be those of %s %s, which has no instance: start it first", name, service, version)
				}
			}
			return next, err
		})
		if err == nil {
			err = apply(ctx, store, service)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(c.stdout, redact.Lines(r.line()))
		return nil
	}}
}

// unknown is the error for a service without a release.
func (c *command) unknown(ctx context.Context, store kv.Store, service string) error {
	all, err := values(ctx, store, releasesPrefix)
	if err != nil {
		return err
	}
	like := cli.DidYouMean(near.Find(service, slices.Sorted(maps.Keys(all))))
	return fmt.Errorf("there is no release of %s: %sbegin one with %s rollout start %s VERSION", service, like, c.name, service)
}

// openTime bounds the connection to the store, and its first answer.
const openTime = 10 * time.Second

// open returns the store, and the resolver beside it, nil if that is unknown.
func (c *command) open(ctx context.Context) (kv.Store, discovery.Resolver, error) {
	url, discoveryURL := c.url, ""
	if url == "" {
		settings, err := c.call.Settings()
		if err != nil {
			return nil, nil, err
		}
		discoveryURL = settings.DiscoveryURL.Reveal()
		url = cmp.Or(settings.SettingsURL.Reveal(), discoveryURL)
	}
	if url == "" || url == "memory:" || strings.HasPrefix(url, "static:") {
		return nil, nil, cli.Usagef("which store? Run it in the directory of a program of package local (or with --data-dir), " +
			"set DISCOVERY_URL as its services have it, or say --store URL")
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	backend, err := c.backends.Open(ctx, url)
	if err != nil {
		return nil, nil, err
	}
	keeps, ok := backend.(interface{ Store() (kv.Store, error) })
	if !ok {
		return nil, nil, cli.Usagef("store %s keeps no values: expected nats:// or consul://", redact.URL(url))
	}
	store, err := keeps.Store()
	if err != nil {
		return nil, nil, err
	}
	if discoveryURL != "" && discoveryURL != url {
		if backend, err = c.backends.Open(ctx, discoveryURL); err != nil {
			return nil, nil, err
		}
	}
	if lists, ok := backend.(interface {
		Registry() (discovery.Registry, error)
	}); ok {
		registry, err := lists.Registry()
		return store, registry, err
	}
	return store, nil, nil
}
