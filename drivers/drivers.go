// Package drivers is the registry of backends: servers such as NATS, Kafka or Consul that a program
// reaches by a URL. Importing a backend's package links it, as with database/sql:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats" // nats://
//
// A backend has one package, one connection and one log line per outage for everything that it can
// do. Each ability is an optional method of its [Backend], found by a type assertion:
//
//	Broker() (driver.Broker, error)        events, for package messaging
//	Registry() (discovery.Registry, error) who is where, for DISCOVERY_URL
//	Store() (kv.Store, error)              watched values, for live settings
//	Session(…) cache.Session               shared values, for package cache
//	Healthy() error                        whether the server can be reached; see Set
//	As(target any) bool                    sets *target to the vendor's client, if it is of its type
//
// A new backend calls [Register] in its package's init and passes the conformance suites of what it
// can do: drivertest, discoverytest and kvtest.
package drivers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// A Backend is the connection to the server at one URL. All methods may be called concurrently.
type Backend interface {
	// Close closes everything obtained from the backend, and its connections. It returns when that
	// is done. When ctx ends first it cuts them. Further calls do nothing.
	Close(ctx context.Context) error
}

// Options are the options of all backends of a program. The zero value is ready to use.
type Options struct {
	// Log is where backends log; nil discards.
	Log *slog.Logger
	// Client is the program's name in the server's list of connections, for the backends that send
	// one: NATS, RabbitMQ and Kafka. Default "kaptar".
	Client string
}

// Open opens a URL. opts and its fields are never nil or empty. ctx bounds only the opening. Errors
// name the URL without its password.
type Open = func(ctx context.Context, url string, opts *Options) (Backend, error)

// home is where the packages of kaptar's own backends are.
const home = "github.com/kaptar/kaptar/drivers/"

// known maps each scheme for which kaptar has a backend to its package.
var known = map[string]string{
	"amqp": "rabbitmq", "amqps": "rabbitmq", "consul": "consul", "dns": "dns", "kafka": "kafka",
	"kubernetes": "kubernetes", "memory": "memory", "nats": "nats", "redis": "redis", "rediss": "redis",
	"tls": "nats",
}

// registered holds the functions of the imported packages, by scheme.
var registered = struct {
	sync.RWMutex
	open map[string]Open
}{open: map[string]Open{}}

// Register registers a backend for a URL scheme. Call it only from init functions. It panics if the
// scheme is empty or already registered, or if open is nil.
func Register(scheme string, open Open) {
	registered.Lock()
	defer registered.Unlock()
	if scheme == "" || open == nil {
		panic("drivers: a backend needs a scheme and a function")
	}
	if registered.open[scheme] != nil {
		panic("drivers: scheme " + scheme + " registered twice")
	}
	registered.open[scheme] = open
}

// lookup returns the scheme of a URL and its function.
func lookup(url string) (scheme string, open Open, err error) {
	registered.RLock()
	defer registered.RUnlock()
	linked := cmp.Or(strings.Join(slices.Sorted(maps.Keys(registered.open)), ", "), "none")
	scheme, _, ok := strings.Cut(url, ":")
	switch open = registered.open[scheme]; {
	case !ok || scheme == "":
		err = fmt.Errorf("drivers: url %q: expected a scheme, for example nats://localhost:4222 (linked: %s)", redact.URL(url), linked)
	case open != nil && questionInPassword(url):
		err = fmt.Errorf("drivers: url %q: there is a ? before the @: in a password write %%3F for it", redact.URL(url))
	case open != nil:
	case known[scheme] != "":
		err = fmt.Errorf("drivers: url %q: no driver for %s is linked (linked: %s): add import _ %q", redact.URL(url), scheme, linked, home+known[scheme])
	default:
		err = fmt.Errorf("drivers: url %q: unknown scheme %q (linked: %s): import the package of a driver that registers it", redact.URL(url), scheme, linked)
	}
	return scheme, open, err
}

// questionInPassword reports whether the password of a URL has an unescaped question mark. Drivers
// would take the rest for parameters, and show it in errors.
func questionInPassword(url string) bool {
	_, query, _ := strings.Cut(url, "?")
	return strings.Contains(query, "@")
}

// watchInterval is how often Healthy of a backend is called; that costs no round trip.
const watchInterval = time.Second

// A Set is the backends of one program. Each URL is opened once, and its users share the
// connection. A backend with a method Healthy is watched: its loss and its return are logged once
// each. The zero value is ready to use. Set the fields before the first call, and do not copy a
// Set. Its methods may be called concurrently.
type Set struct {
	Options Options
	// Prepare, if set, is called before a URL is opened. Package local uses it to start its
	// embedded broker on first use. An error becomes that of Open.
	Prepare func(ctx context.Context, url string) error

	mu      sync.Mutex
	entries map[string]*entry // by URL
	order   []*entry          // in which they were opened
	closed  bool
}

// An entry is one URL.
type entry struct {
	mu      sync.Mutex // held while it is opened
	backend Backend    // nil: not open
	unwatch func()
}

var errClosed = errors.New("drivers: the program's backends are closed")

// Open returns the backend at url. The first call opens it; after a failure the next call tries
// again. If the driver of a backend of kaptar is not linked, the error names the package to import.
// The caller must not close the backend.
func (s *Set) Open(ctx context.Context, url string) (Backend, error) {
	e, err := s.entry(url)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.backend != nil {
		return e.backend, nil
	}
	scheme, open, err := lookup(url)
	if err != nil {
		return nil, err
	}
	opts := &Options{cmp.Or(s.Options.Log, slog.New(slog.DiscardHandler)), cmp.Or(s.Options.Client, "kaptar")}
	if s.Prepare != nil {
		if err := s.Prepare(ctx, url); err != nil {
			return nil, err
		}
	}
	backend, err := open(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	servers, _, _ := strings.Cut(url, "?")
	shown := slog.String("url", redact.URL(servers))
	if tlsfiles.Exposed(url) {
		opts.Log.LogAttrs(ctx, slog.LevelWarn, "a password goes to another machine without TLS, where others can read it: have the URL ask for TLS", shown)
	}
	err = s.keep(e, backend, &steady.Outage{What: cmp.Or(known[scheme], scheme), Log: opts.Log, Attrs: []slog.Attr{shown}})
	if err != nil {
		return nil, err
	}
	return backend, nil
}

// Add makes Open return backend for url. Call it before the first Open of that url. The Set does
// not close the backend. It is for tests, whose backends outlive the program that uses them.
func (s *Set) Add(url string, backend Backend) error {
	e, err := s.entry(url)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.backend = backend
	return nil
}

func (s *Set) entry(url string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	e := s.entries[url]
	if e == nil {
		e = new(entry)
		if s.entries == nil {
			s.entries = map[string]*entry{}
		}
		s.entries[url] = e
	}
	return e, nil
}

// keep records an opened backend and watches it.
func (s *Set) keep(e *entry, backend Backend, outage *steady.Outage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	if s.closed { // meanwhile
		cancel()
		return errors.Join(errClosed, backend.Close(ctx))
	}
	e.backend, e.unwatch = backend, cancel
	s.order = append(s.order, e)
	if h, ok := backend.(interface{ Healthy() error }); ok {
		go outage.Watch(ctx, watchInterval, func(context.Context) error { return h.Healthy() })
	}
	return nil
}

// Close closes all backends, the last one opened first, with ctx. Open fails afterwards.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	order := s.order
	s.order = nil
	s.mu.Unlock()
	var errs []error
	for _, e := range slices.Backward(order) {
		e.unwatch()
		errs = append(errs, e.backend.Close(ctx))
	}
	return errors.Join(errs...)
}
