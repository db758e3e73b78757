package kaptar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
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

// Options say how Run goes about it. The zero value, and nil, read no
// configuration at all: struct-tag defaults only.
type Options struct {
	// Sources are where settings come from.
	Sources config.Sources
	// Others are services that do not run here but that the configuration may speak
	// of, so that all parts of a system can share one file.
	Others []Service
	// Log is where the services' logs go; default os.Stderr. Each service writes
	// whole records, at the same time as others.
	Log io.Writer
	// SpanProcessor, if set, sees the spans of all services, wherever else they go: a test records
	// them with the OpenTelemetry SDK's tracetest.SpanRecorder. Run does not shut it down.
	SpanProcessor sdktrace.SpanProcessor
	// Backends, if set, are used for these URLs, which Run then neither opens nor closes.
	Backends map[string]drivers.Backend
	// Registry, if set, is used by services with no discovery_url; default is a
	// registry in memory that the services of this Run share.
	Registry discovery.Registry
	// Prepare, if set, runs once the settings are known and before any Setup; what
	// it returns is called after the last service has stopped. Package local starts
	// its embedded engines here.
	Prepare func(ctx context.Context, settings *config.Config) (stop func(context.Context) error, err error)
	// Ready, if set, is called once, when every service is ready.
	Ready func(services []Endpoint)
}

// An Endpoint tells where a running service is reached.
type Endpoint struct {
	Service, Version string
	HTTP, GRPC       string // host:port; GRPC is "" when the service has none
}

// Run runs services until ctx ends or one of them fails, then stops all of them
// in the order that the package comment tells. It returns nil after a complete,
// graceful stop; every mistake in the settings at once (config.Errors) or every
// failed Setup, before anything listens; the cause when a task or a server failed;
// and what was still running when the shutdown's time was over.
func Run(ctx context.Context, opts *Options, services ...Service) error {
	if opts == nil {
		opts = new(Options)
	}
	if err := checkServices(services); err != nil {
		return err
	}
	loaded, err := LoadSettings(opts.Sources, services, opts.Others)
	if err != nil {
		return err
	}
	sys := &system{opts: opts, local: transport.NewLocal(), shared: opts.Registry}
	if sys.shared == nil {
		sys.shared = discovery.NewMemory()
	}
	for url, backend := range opts.Backends {
		if err := sys.backends.Add(url, backend); err != nil {
			return err
		}
	}
	sys.base, sys.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer sys.cancel(nil)
	if opts.Prepare != nil {
		stop, err := opts.Prepare(ctx, loaded)
		if err != nil {
			return err
		}
		sys.stopEngines = stop
	}
	if err := sys.setup(ctx, services, loaded); err != nil {
		return errors.Join(err, sys.close())
	}
	store, err := sys.store(ctx)
	if err != nil {
		return errors.Join(err, sys.close())
	}
	if err := sys.start(ctx); err != nil {
		return errors.Join(err, sys.stop())
	}
	sys.goTask(sys.apps[0], task{"settings file", true, func(ctx context.Context) error { return loaded.Watch(ctx, sys.told) }})
	if store != nil {
		sys.goTask(sys.apps[0], task{"settings store", true, func(ctx context.Context) error { return sys.followStore(ctx, loaded, store) }})
	}
	if opts.Ready != nil {
		opts.Ready(sys.endpoints())
	}
	var cause error
	select {
	case <-ctx.Done():
	case <-sys.base.Done():
		cause = context.Cause(sys.base)
	}
	return errors.Join(cause, sys.stop())
}

// LoadSettings reads the settings of services: the toolkit's, the sections of all linked packages
// and the services' own. others are as in Options. The error is a *config.Errors with every mistake.
func LoadSettings(src config.Sources, services, others []Service) (*config.Config, error) {
	targets := targetsOf(services)
	for _, t := range targetsOf(others) {
		t.SchemaOnly = true
		targets = append(targets, t)
	}
	return config.Load(src, targets...)
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

// A system is the services of one Run.
type system struct {
	opts        *Options
	apps        []*App
	local       *transport.Local
	base        context.Context // the services' own; its cause is what made them fail
	cancel      context.CancelCauseFunc
	stopEngines func(context.Context) error

	shared   discovery.Registry // of services that name none
	backends drivers.Set        // what URLs name, each opened once for all services

	servers sync.WaitGroup
	tasks   running
	watches running // tasks of the toolkit itself
	ready   bool
}

// fail makes Run stop because of err; the first one counts.
func (s *system) fail(err error) { s.cancel(err) }

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

func (s *system) endpoints() []Endpoint {
	out := make([]Endpoint, 0, len(s.apps))
	for _, a := range s.apps {
		out = append(out, Endpoint{a.Name(), a.Version(), a.server.HTTPAddr(), a.server.GRPCAddr()})
	}
	return out
}

func (s *system) output() io.Writer {
	if s.opts.Log != nil {
		return s.opts.Log
	}
	return os.Stderr
}

// running keeps account of named tasks, so that a late one can be told.
type running struct {
	mu    sync.Mutex
	names []string
	idle  chan struct{} // closed when names became empty; nil when nobody waits
}

func (r *running) add(name string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, name)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if i := slices.Index(r.names, name); i >= 0 {
			r.names = slices.Delete(r.names, i, i+1)
		}
		if len(r.names) == 0 && r.idle != nil {
			close(r.idle)
			r.idle = nil
		}
	}
}

// wait returns when nothing runs, or with what still does when ctx ends.
func (r *running) wait(ctx context.Context) error {
	r.mu.Lock()
	if len(r.names) == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("kaptar: still running when the time for stopping was over: %v", r.names)
	}
}

// level is the live log level of one service.
type level struct{ *Settings }

var _ slog.Leveler = level{}
