package kaptar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// setup makes an App for every service and runs all Setups concurrently. It returns the errors of
// all that failed. When ctx ends meanwhile, it returns once they have, or after stoppedSetup.
func (s *system) setup(ctx context.Context, services []Service, settings *config.Config) error {
	s.apps = make([]*App, len(services))
	for i, service := range services {
		app, err := s.newApp(ctx, service, settings)
		if err != nil {
			s.apps = s.apps[:i]
			if err = unlessStopped(ctx, err); err != nil {
				err = fmt.Errorf("kaptar: %s: %w", service.Name, err)
			}
			return err
		}
		s.apps[i] = app
	}
	failed := make([]error, len(s.apps))
	returned := make(chan *App, len(s.apps))
	for i, app := range s.apps {
		go func() {
			if err := unlessStopped(ctx, guard(func() error { return app.service.Setup(app) })); err != nil {
				failed[i] = fmt.Errorf("kaptar: %s: setup: %w", app.Name(), err)
			}
			returned <- app
		}()
	}
	if err := s.await(ctx, returned); err != nil {
		return err
	}
	return errors.Join(failed...)
}

// lateSetup is the time after which a Setup that still runs is logged. stoppedSetup is how long one
// may go on when the program is told to stop.
const (
	lateSetup    = 5 * time.Second
	stoppedSetup = time.Second
)

// await waits until all apps have come from returned. An app whose Setup does not end is removed
// from s.apps, because what it has opened cannot be closed while it runs.
func (s *system) await(ctx context.Context, returned <-chan *App) error {
	waiting := slices.Clone(s.apps)
	late, told, over := time.After(lateSetup), ctx.Done(), (<-chan time.Time)(nil)
	if s.offline { // it serves nothing
		late = nil
	}
	for len(waiting) > 0 {
		select {
		case done := <-returned:
			waiting = slices.DeleteFunc(waiting, func(a *App) bool { return a == done })
		case <-late:
			for _, a := range waiting {
				a.Logger().Warn("Setup has not returned yet, and nothing is served before", "running_for", lateSetup)
			}
		case <-told:
			s.cancel(nil)
			told, over = nil, time.After(stoppedSetup)
		case <-over:
			s.apps = slices.DeleteFunc(s.apps, func(a *App) bool { return slices.Contains(waiting, a) })
			var names []string
			for _, a := range waiting {
				names = append(names, a.Name())
			}
			return fmt.Errorf("kaptar: told to stop, but Setup has not returned: %s", strings.Join(names, ", "))
		}
	}
	return nil
}

func (s *system) newApp(ctx context.Context, service Service, settings *config.Config) (*App, error) {
	set := config.Of[Settings](settings, service.Name)
	service.Version = cmp.Or(service.Version, defaultVersion)
	id := cmp.Or(set.InstanceID, instanceID(service.Name))
	options := config.Of[telemetry.Settings](settings, service.Name).Options()
	options.Service, options.Version, options.InstanceID = service.Name, service.Version, id
	options.Log = telemetry.LogOptions{Output: cmp.Or[io.Writer](s.opts.Log, os.Stderr), Format: set.LogFormat, Level: set}
	options.SpanProcessor = s.opts.SpanProcessor
	if s.offline { // what a person wants to know comes from the command
		options.Endpoint, options.LogsEndpoint, options.Log.Level = "", "", slog.LevelWarn
	}
	tel, err := telemetry.New(ctx, options)
	if err != nil {
		return nil, err
	}
	if s.backends.Options.Log == nil { // the first service speaks for all
		s.backends.Options.Log = tel.Logger()
		if cap(s.apps) == 1 { // else the drivers' own name
			s.backends.Options.Client = service.Name
		}
	}
	var registry discovery.Registry = new(discovery.Memory)
	if !s.offline {
		if registry, err = s.registry(ctx, set); err != nil {
			return nil, errors.Join(err, tel.Shutdown(ctx))
		}
	}
	tr := transport.New(&transport.Options{
		Caller: service.Name, Resolver: registry, Local: s.local, Telemetry: tel,
		Default: transport.Settings{Timeout: set.CallTimeout, Breaker: set.Breaker, Retry: set.Retry, Subset: set.Subset}, Targets: set.Clients,
		Weights: &s.weights, Zone: set.Meta["zone"], InstanceID: id,
	})
	if set.Faults.Enabled {
		tr.Options().Faults = &s.faults
	}
	app := &App{
		service: service, id: id, config: settings, settings: set, telemetry: tel, transport: tr,
		client: &http.Client{Transport: tr},
		server: server.New(server.Options{
			HTTP: set.Listen, GRPC: set.GRPCListen,
			HTTPSetting: s.settingName(service, "LISTEN"), GRPCSetting: s.settingName(service, "GRPC_LISTEN"),
			Reflection: set.GRPCReflection || set.Debug,
			Telemetry:  tel, MaxBody: int64(set.MaxBody), Limit: set.Limit, Timeout: set.RequestTimeout,
			DeadlineFrom: set.DeadlineFrom, TraceFrom: set.TraceFrom, AdminFrom: set.AdminFrom,
		}),
		base: s.base, backends: &s.backends, attached: make(map[any]any), offline: s.offline,
		openDB: s.opts.OpenDB,
	}
	if app.openDB == nil {
		app.openDB = sqldb.Open
	}
	if err := app.identify(); err != nil {
		return nil, errors.Join(err, tel.Shutdown(ctx))
	}
	return app, nil
}

// settingName returns the environment variable of a setting of service, with the service's name in
// front if the program has several.
func (s *system) settingName(service Service, name string) string {
	if cap(s.apps) == 1 && len(s.opts.Others) == 0 {
		return name
	}
	return config.EnvName(service.Name) + "_" + name
}
