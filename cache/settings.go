package cache

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/redact"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/cache") }

// Settings are this package's section of the configuration: where Redis is. Package local sets an
// empty redis_host, with which caches are in the process.
type Settings struct {
	RedisHost string        `config:"redis_host,empty" default:"localhost" help:"host or host:port of Redis, for caches; empty keeps them in the process"`
	RedisURL  config.Secret `config:"redis_url" help:"redis://user:password@host:6379/0, or rediss:// for TLS, instead of redis_host"`
}

// shared is what the caches of one service have in common.
type shared struct {
	link     *link           // nil: they are in the process
	stop     context.Context // ends all loads, when the service has stopped
	requests *prometheus.CounterVec

	mu    sync.Mutex
	names map[string]bool
}

type sharedKey struct{}

func sharedOf(app *kaptar.App) (*shared, error) {
	return kaptar.Attach(app, sharedKey{}, func() (*shared, error) {
		set := kaptar.SectionOf[Settings](app)
		url, setting, err := urlOf(set)
		var to server
		if err == nil && url != "" {
			to, err = open(app.Context(), url, app.Backend)
		}
		if err != nil {
			return nil, fmt.Errorf("cache: %s: %s: %w", app.Name(), setting, err)
		}
		ctx, stop := context.WithCancel(context.Background())
		s := &shared{stop: ctx, names: make(map[string]bool), requests: newRequests(app.Name())}
		app.Metrics().MustRegister(s.requests)
		app.OnStop("loads of the cache", func(context.Context) error { stop(); return nil })
		if to != nil {
			s.link = newLink(to, app.Name(), setting, url, app.Logger())
			app.OnStop("redis", s.link.close)
			_ = s.link.connect() // which logs; the task goes on trying
			app.Go("redis", s.link.run)
		}
		return s, nil
	})
}

func newRequests(service string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cache_requests_total", ConstLabels: prometheus.Labels{"service": service},
		Help: "Values asked for: hit, miss (loaded), or error (loaded, as Redis could not be asked).",
	}, []string{"cache", "result"})
}

// reserve keeps two caches from writing to the same keys.
func (s *shared) reserve(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] {
		return fmt.Errorf("cache: two caches are named %q", name)
	}
	s.names[name] = true
	return nil
}

// urlOf returns the URL of the server that the settings name, and which of them does; "" when none
// does.
func urlOf(set *Settings) (url, setting string, err error) {
	if url := set.RedisURL.Reveal(); url != "" || set.RedisHost == "" {
		return url, "REDIS_URL", nil
	}
	addr, err := fromHost(set.RedisHost)
	return "redis://" + addr, "REDIS_HOST", err
}

// open returns the server behind url; an error has no password.
func open(ctx context.Context, url string, backend func(context.Context, string) (drivers.Backend, error)) (server, error) {
	b, err := backend(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%w; without a server, set REDIS_HOST to nothing", err)
	}
	s, ok := b.(server)
	if !ok {
		return nil, fmt.Errorf("%s keeps no values of caches, expected redis://…", redact.URL(url))
	}
	return s, nil
}

// fromHost takes host, host:port, and IPv6 addresses with and without brackets.
func fromHost(host string) (addr string, err error) {
	name, port := strings.Trim(host, "[]"), "6379"
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
	}
	n, err := strconv.ParseUint(port, 10, 16)
	bad := name == "" || strings.ContainsAny(name, "/@ []") || strings.Contains(name, ":") && net.ParseIP(name) == nil
	if err != nil || n == 0 || bad {
		return "", fmt.Errorf("%q: expected a host or host:port; a URL belongs in REDIS_URL", redact.URL(host))
	}
	return net.JoinHostPort(name, port), nil
}
