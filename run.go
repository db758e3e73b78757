package kaptar

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/transport"
)

// Options change how Run works. With nil or the zero value no configuration is read: all settings
// have the defaults of their struct tags.
type Options struct {
	// Sources are where settings come from.
	Sources config.Sources
	// Others are services that run elsewhere. The configuration may have settings for them, so that
	// all parts of a system can share one file.
	Others []Service
	// Log receives the services' logs; default os.Stderr. Services write concurrently, each Write a
	// whole record.
	Log io.Writer
	// SpanProcessor, if set, sees the spans of all services, whether or not they are exported too.
	// A test can pass the OpenTelemetry SDK's tracetest.SpanRecorder.
	SpanProcessor interface{ OnEnd(s sdktrace.ReadOnlySpan) }
	// Backends, if set, are used for their URLs. Run neither opens nor closes them.
	Backends map[string]drivers.Backend
	// Registry, if set, is used by services without a discovery_url. The default is a registry in
	// memory that the services of this Run share.
	Registry discovery.Registry
	// Prepare, if set, is called before a backend's URL is opened (see drivers.Set).
	Prepare func(ctx context.Context, url string) error
	// OpenDB, if set, opens the databases of services; default sqldb.Open.
	OpenDB func(ctx context.Context, url string) (*sql.DB, error)
	// NoPorts makes services listen on no port. It is for bubbles of testing/synctest, where time does
	// not pass while a goroutine waits for the network. Services of this Run still reach each other.
	NoPorts bool
	// Ready, if set, is called once, when all services are ready, with the addresses on which they
	// listen.
	Ready func(services []discovery.Instance)

	loaded *config.Config // what Load has read
}

// Load reads the settings of services: the toolkit's, the sections of all linked packages and the
// services' own. The error holds all mistakes (a *config.Errors), or names services that cannot run
// together. Run calls Load unless that was done before. Call it at most once, with the same
// services as Run.
func (o *Options) Load(services ...Service) (*config.Config, error) {
	if err := checkServices(services); err != nil {
		return nil, err
	}
	loaded, err := o.load(services)
	if err != nil {
		return loaded, err
	}
	o.loaded = loaded
	var all []listener // the gRPC ports are known when Setup has registered what they serve
	for _, s := range services {
		all = append(all, listener{s.Name, config.EnvName(s.Name) + "_LISTEN", config.Of[Settings](loaded, s.Name).Listen})
	}
	return loaded, checkAddresses(all)
}

func (o *Options) load(services []Service) (*config.Config, error) {
	targets := targetsOf(services)
	for _, t := range targetsOf(o.Others) {
		t.SchemaOnly = true
		targets = append(targets, t)
	}
	return config.Load(o.Sources, targets...)
}

// Run runs services until ctx ends or one of them fails, then stops all of them in the order of the
// package comment. It returns nil after a complete, graceful stop. Before anything listens it
// returns all mistakes in the settings (a *config.Errors), or the errors of all Setups that failed.
// Later it returns the error of a task or server that failed, and what was still running when the
// shutdown timed out.
func Run(ctx context.Context, opts *Options, services ...Service) error {
	sys, loaded, err := prepare(ctx, opts, services)
	if err != nil {
		return err
	}
	defer sys.cancel(nil)
	if err := sys.setup(ctx, services, loaded); err != nil || ctx.Err() != nil {
		return errors.Join(err, sys.close())
	}
	store, err := sys.apps[0].Store(ctx) // the first service speaks for all
	if err != nil {
		return errors.Join(err, sys.close())
	}
	if err := sys.start(ctx); err != nil {
		return errors.Join(unlessStopped(ctx, err), sys.stop())
	}
	sys.warnOfOthers()
	sys.goTask(sys.apps[0], task{"settings file", true, func(ctx context.Context) error { return loaded.Watch(ctx, sys.logChanges) }})
	if store != nil {
		sys.followStore(loaded, store)
	} else {
		sys.applyWeights(nil) // so that it is known that there are none
	}
	if opts.Ready != nil {
		opts.Ready(sys.listening())
	}
	var cause error
	select {
	case <-ctx.Done():
	case <-sys.base.Done():
		cause = context.Cause(sys.base)
	}
	return errors.Join(cause, sys.stop())
}

// prepare reads the settings of services, unless that has been done, and returns a system without
// apps.
func prepare(ctx context.Context, opts *Options, services []Service) (*system, *config.Config, error) {
	opts = cmp.Or(opts, new(Options))
	loaded := opts.loaded
	if loaded == nil {
		var err error
		if loaded, err = opts.Load(services...); err != nil {
			return nil, nil, err
		}
	}
	sys := &system{opts: opts, local: new(transport.Local), shared: cmp.Or[discovery.Registry](opts.Registry, new(discovery.Memory))}
	for url, backend := range opts.Backends {
		if err := sys.backends.Add(url, backend); err != nil {
			return nil, nil, err
		}
	}
	sys.backends.Prepare = opts.Prepare
	sys.base, sys.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return sys, loaded, nil
}

// migrate runs the Setups of services, which migrate their databases, and closes what they opened.
func migrate(ctx context.Context, opts *Options, services ...Service) error {
	return offline(ctx, opts, services, false, func(context.Context, []*App) error { return nil })
}

// offline runs the Setups of services, calls use and closes what they opened. Nothing listens, and
// no task starts. told is what App.Offline reports meanwhile.
func offline(ctx context.Context, opts *Options, services []Service, told bool, use func(context.Context, []*App) error) error {
	err := checkServices(services)
	if err == nil && opts.loaded == nil { // Load checks addresses too, and nothing listens
		opts.loaded, err = opts.load(services)
	}
	if err != nil {
		return err
	}
	sys, loaded, err := prepare(ctx, opts, services)
	if err != nil {
		return err
	}
	sys.offline = told
	if err = sys.setup(ctx, services, loaded); err == nil && ctx.Err() == nil {
		err = guard(func() error { return use(ctx, sys.apps) })
	}
	return errors.Join(err, sys.close())
}

// unlessStopped returns err, or nil if err only says that ctx has ended.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func targetsOf(services []Service) []config.Target {
	var targets []config.Target
	for _, s := range services {
		targets = append(targets, config.Target{Service: s.Name, Into: &Settings{Listen: s.Listen, GRPCListen: s.GRPCListen}})
		targets = append(targets, config.Sections(s.Name)...)
		if s.Settings != nil {
			targets = append(targets, config.Target{Service: s.Name, Into: s.Settings})
		}
	}
	return targets
}

// A system is all services of one Run.
type system struct {
	opts    *Options
	apps    []*App
	local   *transport.Local
	weights transport.Weights       // of all services' calls
	faults  transport.Faults        // of those services that allow it
	faulty  bool                    // there are some
	base    context.Context         // the services' own; its cause is what made them fail
	cancel  context.CancelCauseFunc // stops Run because of an error; the first one counts
	offline bool                    // see App.Offline

	shared   discovery.Registry // of services that name none
	backends drivers.Set        // what URLs name, each opened once for all services

	servers sync.WaitGroup
	tasks   running
	watches running // tasks of the toolkit itself
	ready   bool
}

// registry returns the registry behind the service's discovery_url.
func (s *system) registry(ctx context.Context, set *Settings) (discovery.Registry, error) {
	url := set.DiscoveryURL.Reveal()
	if url == "" || url == "memory:" {
		return s.shared, nil
	}
	if table, ok := strings.CutPrefix(url, "static:"); ok {
		r, err := discovery.ParseStatic(table)
		if err != nil {
			return nil, fmt.Errorf("discovery_url: %w", err)
		}
		return r, nil
	}
	backend, err := s.backends.Open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("discovery_url: %w", err)
	}
	b, ok := backend.(interface {
		Registry() (discovery.Registry, error)
	})
	if !ok {
		return nil, fmt.Errorf("discovery_url: %s keeps no instances: expected memory:, static:TABLE, nats://, consul://, kubernetes:// or dns://", redact.URL(url))
	}
	return b.Registry()
}

// listening returns the instances as discovery knows them, but with the addresses that are bound on
// this machine.
func (s *system) listening() []discovery.Instance {
	out := make([]discovery.Instance, 0, len(s.apps))
	for _, a := range s.apps {
		at := a.instance()
		at.HTTP, at.GRPC = a.server.HTTPAddr(), a.server.GRPCAddr()
		out = append(out, at)
	}
	return out
}

// warnOfOthers logs that services in other processes cannot be found, and cannot find these.
func (s *system) warnOfOthers() {
	if len(s.opts.Others) == 0 || s.opts.Registry != nil {
		return
	}
	var names []string
	for _, other := range s.opts.Others {
		names = append(names, other.Name)
	}
	for _, a := range s.apps {
		if a.settings.DiscoveryURL == "" {
			a.Logger().Warn("discovery_url is not set: services in other processes are not found, nor is this one",
				"services", names)
		}
	}
}

// running keeps track of named tasks, so that an error can name those that do not end.
type running struct {
	all   sync.WaitGroup
	mu    sync.Mutex
	names []string
}

func (r *running) run(name string, task func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, name)
	r.all.Go(func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			i := slices.Index(r.names, name)
			r.names = slices.Delete(r.names, i, i+1)
		}()
		task()
	})
}

// wait returns nil when no task runs any more. When ctx ends first, the error names those that do.
func (r *running) wait(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		r.all.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("kaptar: still running at the end of the shutdown timeout: %v", r.names)
	}
}
