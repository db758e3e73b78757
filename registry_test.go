package kaptar_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
)

// A remote is a registry of the kind that has a connection.
type remote struct {
	*discovery.Memory
	log     *slog.Logger
	present []string
	closed  int
	fail    error
}

func (r *remote) Registry() (discovery.Registry, error) { return r, nil }
func (r *remote) Close(context.Context) error           { r.closed++; return nil }

func (r *remote) Register(ctx context.Context, in discovery.Instance) error {
	r.log.Info("registering")
	r.present = append(r.present, in.Service)
	return errors.Join(r.fail, r.Memory.Register(ctx, in))
}

func (r *remote) Deregister(ctx context.Context, in discovery.Instance) error {
	if r.closed > 0 {
		return errors.New("deregistered after Close")
	}
	return r.Memory.Deregister(ctx, in)
}

// TestStopWaitsLittleForARegistry: one that hangs does not take the time of what stops after it.
func TestStopWaitsLittleForARegistry(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) {
		return &backend{registry: hung{new(discovery.Memory)}}, nil
	})
	nothing := func(*kaptar.App) error { return nil }
	services := []kaptar.Service{{Name: "a", Setup: nothing}, {Name: "b", Setup: nothing}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := make(lines, 1000)
	err := kaptar.Run(ctx, &kaptar.Options{
		Sources: onFreePorts(map[string]string{"discovery_url": scheme + "://x", "shutdown_timeout": "4s"}, services),
		Log:     log,
		Ready:   func([]discovery.Instance) { cancel() },
	}, services...)
	if err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	log.until(t, "not deregistered")
	log.until(t, "not deregistered")
}

// hung is a registry that never answers to Deregister.
type hung struct{ *discovery.Memory }

func (hung) Deregister(ctx context.Context, _ discovery.Instance) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestInstanceIsToldAsSet: id, tags and values of a service's settings reach the registry, beside
// what the service itself is.
func TestInstanceIsToldAsSet(t *testing.T) {
	t.Parallel()
	registry := new(discovery.Memory)
	services := []kaptar.Service{{Name: "a", Version: "v7", Setup: func(*kaptar.App) error { return nil }}}
	ctx, cancel := context.WithCancel(t.Context())
	var got []discovery.Instance
	err := kaptar.Run(ctx, &kaptar.Options{
		Sources: onFreePorts(map[string]string{"instance_id": "a-1", "tags": "canary,north", "meta": "zone=b"}, services),
		Log:     make(lines, 1000), Registry: registry,
		Ready: func([]discovery.Instance) {
			watching, done := context.WithCancel(ctx)
			_ = registry.Watch(watching, "a", func(list []discovery.Instance) { got = list; done() })
			cancel()
		},
	}, services...)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID != "a-1" || strings.Join(got[0].Tags, " ") != "http v7 canary north" || got[0].Meta["zone"] != "b" {
		t.Errorf("the registry was told %+v, want id a-1, tags http v7 canary north, zone b", got)
	}
}

// TestRegistryIsOpenedOnceAndClosed: services that name one registry share it; it gets a logger,
// and is closed at the end.
func TestRegistryIsOpenedOnceAndClosed(t *testing.T) {
	t.Parallel()
	for _, fail := range []error{nil, errors.New("no quorum")} {
		scheme := newScheme()
		r := &remote{Memory: new(discovery.Memory), fail: fail}
		opened := 0
		drivers.Register(scheme, func(_ context.Context, _ string, opts *drivers.Options) (drivers.Backend, error) {
			opened++
			r.log = opts.Log
			return r, nil
		})
		nothing := func(*kaptar.App) error { return nil }
		services := []kaptar.Service{{Name: "a", Setup: nothing}, {Name: "b", Setup: nothing}}
		ctx, cancel := context.WithCancel(t.Context())
		var log bytes.Buffer
		err := kaptar.Run(ctx, &kaptar.Options{
			Sources: onFreePorts(map[string]string{"discovery_url": scheme + "://x"}, services),
			Log:     &log,
			Ready:   func([]discovery.Instance) { cancel() },
		}, services...)
		cancel()
		if !errors.Is(err, fail) || fail != nil && !strings.Contains(err.Error(), "discovery_url") {
			t.Errorf("Run = %v, want %v", err, fail)
		}
		if opened != 1 || r.closed != 1 || !strings.Contains(log.String(), "registering") {
			t.Errorf("opened %d times, closed %d times, log %q, want once each and a line", opened, r.closed, &log)
		}
		if fail == nil && strings.Join(r.present, " ") != "a b" {
			t.Errorf("registered %v, want a and b", r.present)
		}
	}
}
