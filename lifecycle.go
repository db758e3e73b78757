package kaptar

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

// start binds all ports, serves, registers with discovery and starts the tasks.
func (s *system) start(ctx context.Context) error {
	if err := s.checkPorts(); err != nil {
		return err
	}
	if err := s.each((*App).secure); err != nil {
		return err
	}
	if !s.opts.NoPorts {
		if err := s.serve(ctx); err != nil {
			return err
		}
	}
	for _, a := range s.apps {
		s.local.Add(a.id, a.server.Handler(), a.server.InProcess())
	}
	for _, a := range s.apps {
		a.server.SetReady(true) // before a registry can look
		if err := s.register(ctx, a); err != nil {
			return fmt.Errorf("kaptar: %s: register at discovery_url: %w", a.Name(), err)
		}
	}
	s.ready = true
	for _, a := range s.apps {
		for _, t := range a.tasks {
			s.goTask(a, t)
		}
		if s.opts.Ready == nil {
			a.Logger().InfoContext(ctx, "ready", "http", a.server.HTTPAddr(), "grpc", a.server.GRPCAddr())
		}
	}
	return nil
}

// serve binds all ports and serves them.
func (s *system) serve(ctx context.Context) error {
	if err := s.each(func(a *App) error { return a.server.Listen() }); err != nil {
		return err
	}
	for _, a := range s.apps {
		a.warnIfOpen(ctx)
		s.servers.Go(func() {
			if err := a.server.Serve(); err != nil {
				s.cancel(fmt.Errorf("kaptar: %s: %w", a.Name(), err))
			}
		})
	}
	return nil
}

// warnIfOpen logs that the service accepts calls from anybody who can reach it. CheckRoutes is set
// when package auth protects the service.
func (a *App) warnIfOpen(ctx context.Context) {
	if host, _, err := net.SplitHostPort(a.server.HTTPAddr()); err != nil || net.ParseIP(host).IsLoopback() || a.server.Options().CheckRoutes != nil {
		return
	}
	a.Logger().WarnContext(ctx, "anybody who can reach this service may call it: use auth.Protect, or listen on loopback", "http", a.server.HTTPAddr())
}

// checkPorts returns an error for services that have the same address to listen on.
func (s *system) checkPorts() error {
	var all []listener
	for _, a := range s.apps {
		all = append(all, listener{a.Name(), config.EnvName(a.Name()) + "_LISTEN", a.settings.Listen})
		if a.server.HasGRPC() {
			all = append(all, listener{a.Name(), config.EnvName(a.Name()) + "_GRPC_LISTEN", a.settings.GRPCListen})
		}
	}
	return checkAddresses(all)
}

// registerTimeout bounds the wait for a registry at the start. It is long enough for a registry
// that restarts, and short enough to report a wrong address while somebody is still watching.
const registerTimeout = 30 * time.Second

func (s *system) register(ctx context.Context, a *App) error {
	registry, err := s.registry(ctx, a.settings)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	return registry.Register(ctx, a.instance())
}

func (s *system) goTask(a *App, t task) {
	name := a.Name() + ": " + t.name
	set := &s.tasks
	if t.internal {
		set = &s.watches
	}
	set.run(name, func() {
		err := guard(func() error { return t.run(s.base) })
		if err != nil && s.base.Err() == nil {
			s.cancel(fmt.Errorf("kaptar: task %s: %w", name, err))
		}
	})
}

// closeGrace is the least time that tasks and closing get, however long the requests took.
const closeGrace = time.Second

// stop takes the services down in the order of the package comment.
func (s *system) stop() error {
	begun := time.Now()
	s.leave()
	ctx, cancel := context.WithTimeout(context.Background(), s.apps[0].settings.ShutdownTimeout)
	defer cancel()
	errs := []error{s.drain(ctx)}
	s.cancel(nil)
	if at, _ := ctx.Deadline(); time.Until(at) < closeGrace {
		ctx, cancel = context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
	}
	errs = append(errs, s.tasks.wait(ctx))
	_ = s.watches.wait(ctx) // ours: nothing that a user could do about them
	s.servers.Wait()
	errs = append(errs, s.closeAll(ctx))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.apps[0].Logger().Info("stopped", "services", len(s.apps), "after", time.Since(begun).Round(time.Millisecond))
	return nil
}

// leave turns readiness red and deregisters the services. It then waits for the drain delay while
// they still serve, so that load balancers notice before the ports close.
func (s *system) leave() {
	for _, a := range s.apps {
		a.server.SetReady(false)
	}
	s.deregister(context.Background())
	var delay time.Duration
	for _, a := range s.apps {
		delay = max(delay, a.settings.DrainDelay)
	}
	if s.ready && delay > 0 {
		s.apps[0].Logger().Info("stopping: requests are still taken", "drain_delay", delay)
		steady.Sleep(s.base, delay) // not in vain: when a task or server has failed, this ends at once
	}
}

// drain waits for requests in flight.
func (s *system) drain(ctx context.Context) error {
	for _, a := range s.apps {
		if busy := a.server.Busy(); len(busy) > 0 {
			a.Logger().Info("stopping: requests are finished first", "waiting_for", busy)
		}
	}
	return s.each(func(a *App) error { return a.server.Shutdown(ctx) })
}

// each runs f for all services concurrently and joins their errors.
func (s *system) each(f func(*App) error) error {
	var all sync.WaitGroup
	failed := make([]error, len(s.apps))
	for i, a := range s.apps {
		all.Go(func() {
			if err := f(a); err != nil {
				failed[i] = fmt.Errorf("kaptar: %s: %w", a.Name(), err)
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// deregisterTimeout keeps a registry that is away from using up the time for requests in flight.
const deregisterTimeout = 2 * time.Second

func (s *system) deregister(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deregisterTimeout)
	defer cancel()
	_ = s.each(func(a *App) error {
		registry, err := s.registry(ctx, a.settings)
		if err == nil {
			err = registry.Deregister(ctx, a.instance())
		}
		if err != nil {
			a.Logger().Warn("not deregistered", "error", err)
		}
		return nil
	})
}

func (s *system) close() error {
	s.cancel(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.closeAll(ctx)
}

func (s *system) closeAll(ctx context.Context) error {
	var errs []error
	for _, a := range s.apps {
		for _, c := range slices.Backward(a.stops) {
			if err := c.run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("kaptar: %s: close %s: %w", a.Name(), c.name, err))
			}
		}
		s.local.Remove(a.id)
		errs = append(errs, a.transport.Close())
	}
	_ = s.each(func(a *App) error {
		if err := a.telemetry.Shutdown(ctx); err != nil { // the stop is complete without it
			a.Logger().Warn("telemetry not flushed", "error", err)
		}
		return nil
	})
	return errors.Join(append(errs, s.backends.Close(ctx))...)
}

func (a *App) instance() discovery.Instance {
	scheme := "http"
	if a.server.Options().TLS != nil {
		scheme = "https"
	}
	in := discovery.Instance{
		ID: a.id, Service: a.Name(), Version: a.Version(),
		HTTP: advertised(a.settings.Advertise, a.server.HTTPAddr()),
		Tags: slices.Concat([]string{scheme, a.Version()}, a.settings.Tags), Meta: a.settings.Meta,
	}
	if a.server.HasGRPC() {
		in.GRPC = advertised(a.settings.Advertise, a.server.GRPCAddr())
		in.Tags = append(in.Tags, "grpc")
	}
	return in
}

// advertised returns the address at which others reach one that is bound here.
func advertised(host, bound string) string {
	boundHost, port, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	host = cmp.Or(host, boundHost)
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = outwardHost()
	}
	return net.JoinHostPort(host, port)
}

// outwardHost returns the first IPv4 address of this machine that others may reach, or loopback
// when it has none.
func outwardHost() string {
	addrs, _ := net.InterfaceAddrs() // none after an error
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// guard runs f and turns a panic into an error that carries the stack.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

func instanceID(service string) string {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(cmp.Or(host, "localhost"), ".")
	return service + "-" + host + "-" + strings.ToLower(rand.Text()[:8])
}
