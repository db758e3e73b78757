package cache

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/cache") }

// Settings are this package's section of the configuration: where Redis is. Package local sets an
// empty redis_host, with which caches are in the process.
type Settings struct {
	RedisHost string        `config:"redis_host" default:"localhost" help:"host or host:port of Redis, for caches; empty keeps them in the process"`
	RedisURL  config.Secret `config:"redis_url" help:"redis://user:password@host:6379/0, or rediss:// for TLS, instead of redis_host"`
}

// shared is what the caches of one service have in common.
type shared struct {
	link     *link           // nil: they are in the process
	loads    context.Context // ends when the service has stopped
	requests *prometheus.CounterVec

	mu    sync.Mutex
	names map[string]bool
}

type sharedKey struct{}

func sharedOf(app *kaptar.App) (*shared, error) {
	return kaptar.Attach(app, sharedKey{}, func() (*shared, error) {
		set := kaptar.SectionOf[Settings](app)
		opts, setting, err := server(set.RedisURL.Reveal(), set.RedisHost)
		if err != nil {
			return nil, fmt.Errorf("cache: %s: %w", app.Name(), err)
		}
		loads, stop := context.WithCancel(context.Background())
		s := &shared{loads: loads, names: make(map[string]bool), requests: newRequests(app.Name())}
		app.Metrics().MustRegister(s.requests)
		app.OnStop("loads of the cache", func(context.Context) error { stop(); return nil })
		if opts != nil {
			s.link = newLink(opts, app.Name(), setting, app.Logger())
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

// server says how to reach Redis and which setting said so; nil when none did. Errors
// have no passwords in them.
func server(rawURL, host string) (opts *redis.Options, setting string, err error) {
	if rawURL != "" {
		opts, err := fromURL(rawURL)
		return opts, "REDIS_URL", err
	}
	if host == "" {
		return nil, "", nil
	}
	addr, err := fromHost(host)
	return &redis.Options{Addr: addr}, "REDIS_HOST", err
}

func fromURL(raw string) (*redis.Options, error) {
	const want = "expected redis://user:password@host:6379/0, or rediss:// for TLS"
	scheme, _, found := strings.Cut(raw, "://")
	if !found || scheme != "redis" && scheme != "rediss" {
		return nil, fmt.Errorf("REDIS_URL %q: no such scheme: %s", redacted(raw), want)
	}
	if _, err := url.Parse(raw); err != nil { // its text repeats the password
		return nil, fmt.Errorf("REDIS_URL %q: no URL (is a character of the password not escaped?): %s", redacted(raw), want)
	}
	opts, err := redis.ParseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL %q: %w: %s", redacted(raw), err, want)
	}
	return opts, nil
}

// redacted leaves out user and password, and what could be one. It does without
// url.Parse, which refuses just the passwords that were not escaped.
func redacted(raw string) string {
	raw, _, _ = strings.Cut(raw, "?")
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		scheme, rest = "", raw
	} else {
		scheme += "://"
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		return scheme + "xxxxx" + rest[at:]
	}
	if scheme != "" && strings.HasPrefix(rest, ":") { // redis://:password, its @host forgotten
		return scheme + "xxxxx"
	}
	return raw
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
		return "", fmt.Errorf("REDIS_HOST %q: expected a host or host:port; a URL belongs into REDIS_URL", redacted(host))
	}
	return net.JoinHostPort(name, port), nil
}
