package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/kv"
)

// A startOptions is what is typed after start.
type startOptions struct {
	service, version, stable string
	strategy, plan, binary   string
	wait                     time.Duration
	watch, force             bool
}

func (c *command) startCommand() *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use: "start SERVICE VERSION", Short: "Release a version", Args: cli.Args,
		Long: "Release a version of a service. By default it gets 5, 25 and 50 % of the calls, each until it is known to be\n" +
			"as good as the stable version, then all of them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.service, o.version = args[0], args[1]
			return c.start(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.strategy, "strategy", "", "canary or blueGreen (default canary, or what the plan says)")
	f.StringVar(&o.plan, "plan", "", "`FILE` of YAML with steps and metrics")
	f.StringVar(&o.binary, "binary", "", "`PATH` of a program that has the version: the supervisor of --split runs it beside")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for the version's first instance (default 1m with --binary, else it must be there)")
	f.BoolVar(&o.watch, "watch", false, "follow the release until it is over, or paused")
	f.StringVar(&o.stable, "stable", "", "the `VERSION` to compare with (default that of the last release, or the only other one)")
	f.BoolVar(&o.force, "force", false, "begin even if the stable version fails or is not there")
	return cmd
}

func (c *command) start(ctx context.Context, o startOptions) error {
	plan, err := o.readPlan()
	if err != nil {
		return err
	}
	if o.binary != "" {
		if o.binary, err = filepath.Abs(o.binary); err != nil {
			return err
		}
		if err := errors.Join(proc.CheckVersion(ctx, o.binary, o.service, o.version), kv.CheckKey(o.localKey())); err != nil {
			return err
		}
	}
	store, resolver, err := c.open(ctx)
	if err != nil {
		return err
	}
	versions, err := listed(ctx, resolver, o.service)
	if err != nil {
		return err
	}
	_, r, err := update(ctx, store, o.service, func(before Release) (Release, error) {
		if before.Service != "" && !before.Done() {
			return before, fmt.Errorf("a release of %s is going on already: %s; abort it, or promote it first", o.service, before.line())
		}
		stable, err := o.choose(before, versions)
		if err != nil {
			return before, err
		}
		r, err := New(o.service, stable, o.version, plan, time.Now())
		r.Force = o.force
		if o.wait > 0 {
			r.Wait = Duration(o.wait)
		}
		return r, err
	})
	if err != nil {
		return err
	}
	if err := apply(ctx, store, o.service); err != nil { // before the version starts: without a weight it gets no calls
		return err
	}
	if o.binary != "" {
		if _, err := store.Put(ctx, o.localKey(), []byte(o.binary)); err != nil {
			return err
		}
	}
	if e, err := store.Get(ctx, leaderKey); err != nil || len(e.Value) == 0 {
		fmt.Fprintln(c.stderr, "nobody controls releases now: it begins when a service that calls rollout.Control runs, such as the gateway")
	}
	if o.watch {
		return c.watch(ctx, store, o.service)
	}
	fmt.Fprintf(c.stdout, "%s\n%s rollout status %s --watch follows it\n", redact.Lines(r.line()), c.name, o.service)
	return nil
}

func (o startOptions) localKey() string { return localPrefix + o.service + "/" + o.version }

func (o startOptions) readPlan() (plan Plan, err error) {
	if o.plan != "" {
		if plan, err = ReadPlan(o.plan); err != nil {
			return plan, err
		}
	}
	switch o.strategy {
	case "":
	case "canary":
		if plan.BlueGreen != nil {
			return plan, cli.Usagef("--strategy canary: %s is a plan for blueGreen", o.plan)
		}
	case "blueGreen":
		if plan.Canary != nil {
			return plan, cli.Usagef("--strategy blueGreen: %s is a plan for a canary", o.plan)
		}
		if plan.BlueGreen == nil {
			plan.BlueGreen = new(BlueGreen)
		}
	default:
		return plan, cli.Usagef("--strategy %s: expected canary or blueGreen", o.strategy)
	}
	return plan, nil
}

// choose returns the stable version, after checking that the new one runs or is to come.
func (o startOptions) choose(before Release, versions map[string]int) (stable string, err error) {
	stable = o.stable
	if stable == "" {
		stable = before.Stable
	}
	if versions == nil {
		if stable == "" {
			return "", errors.New("which version is the stable one? The store does not list instances: say --stable VERSION")
		}
		return stable, nil
	}
	names := slices.Sorted(maps.Keys(versions))
	others := slices.DeleteFunc(slices.Clone(names), func(v string) bool { return v == o.version })
	told := o.service + " has no instance"
	if len(names) > 0 {
		told = fmt.Sprintf("%s has instances of %s", o.service, strings.Join(names, ", "))
	}
	switch {
	case versions[""] > 0:
		return "", fmt.Errorf("some instances of %s have no version: set it, as on Kubernetes with the label app.kubernetes.io/version of the pods", o.service)
	case versions[o.version] == 0 && o.wait == 0 && o.binary == "":
		like := ""
		if name := near.Find(o.version, others); name != "" && name != stable && len(name) > 2 {
			like = cli.DidYouMean(name)
		}
		return "", fmt.Errorf("%s is not running: %s. %sStart it, or have it started by --binary PATH, or say --wait 1m and start it then", o.version, told, like)
	case stable == "" && len(others) == 1:
		return others[0], nil
	case stable == "":
		return "", fmt.Errorf("which version is the stable one? %s: say --stable VERSION", told)
	case versions[stable] == 0 && !o.force:
		return "", fmt.Errorf("the stable version, %s, is not running: %s. Start it, or name the one that has the calls with --stable, "+
			"or use --force if %s is the fix", stable, told, o.version)
	}
	return stable, nil
}

// listTime bounds the question to discovery.
const listTime = 5 * time.Second

// listed returns how many instances of each version there are; nil if that is unknown.
func listed(ctx context.Context, resolver discovery.Resolver, service string) (versions map[string]int, err error) {
	if resolver == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	err = resolver.Watch(ctx, service, func(list []discovery.Instance) {
		if versions == nil {
			versions = map[string]int{}
			for _, in := range list {
				versions[in.Version]++
			}
			cancel()
		}
	})
	if versions == nil && err == nil {
		err = fmt.Errorf("discovery has not answered within %v", listTime)
	}
	if versions != nil {
		err = nil
	}
	return versions, err
}
