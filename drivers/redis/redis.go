// Package redis is Redis for package cache, behind redis:// and rediss:// URLs:
//
//	import _ "github.com/kaptar/kaptar/drivers/redis"
//
//	REDIS_URL=redis://user:password@host:6379/0
//
// It works with one server, or one primary with replicas, but not with Redis Cluster. rediss:// is
// TLS. The URL takes go-redis' parameters, except skip_verify, and for TLS these:
//
//	ca=FILE              certificates of authorities to trust, in PEM; default: the system's
//	cert=FILE, key=FILE  the client's certificate and its key, in PEM
//
// The files are read for each new connection, so they can be renewed. Opening the URL does not
// connect: a service starts while its Redis is away. The cache sets timeouts and retries itself;
// go-redis' parameters for those apply only to the client of As, a *redis.Client for the same
// server, which the backend closes.
package redis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

func init() {
	drivers.Register("redis", open)
	drivers.Register("rediss", open)
}

// Session is the interface of the same name in package cache, which describes its methods.
type Session = interface {
	Take(ctx context.Context, key, shape, lease string, ttl time.Duration) (value []byte, holder string, err error)
	Put(ctx context.Context, key, shape, holder string, value []byte, ttl time.Duration) error
	Delete(ctx context.Context, keys []string) error
	Count(ctx context.Context, key string, every time.Duration, burst int) (wait time.Duration, err error)
	Probe(ctx context.Context) (restarts bool, err error)
	Close() error
}

// A backend is one URL.
type backend struct {
	opts *redis.Options
	tls  tlsfiles.Files

	mu     sync.Mutex
	client *redis.Client // for As
}

func open(_ context.Context, rawURL string, _ *drivers.Options) (drivers.Backend, error) {
	const want = "expected redis://user:password@host:6379/0, or rediss:// for TLS"
	shown, _, _ := strings.Cut(redact.URL(rawURL), "?")
	u, err := url.Parse(rawURL)
	if err != nil { // its text repeats the password
		if !strings.Contains(rawURL, "@") { // what looks like the host may be one
			shown, _, _ = strings.Cut(shown, "://")
		}
		return nil, fmt.Errorf("redis: url %q: no URL (is a character of the password not escaped?): %s", shown, want)
	}
	b := new(backend)
	if err = b.takeFiles(u); err == nil {
		b.opts, err = redis.ParseURL(u.String())
	}
	if err != nil {
		return nil, fmt.Errorf("redis: url %q: %w: %s", shown, err, want)
	}
	b.opts.Dialer = b.tls.Dial // within opts.DialTimeout
	return b, nil
}

// takeFiles takes the parameters that go-redis does not know out of a URL. It refuses skip_verify.
func (b *backend) takeFiles(u *url.URL) error {
	known, own, query := b.tls.Parameters(map[string]params.Param{}), url.Values{}, u.Query()
	for name := range known {
		if query.Has(name) {
			own[name] = query[name]
			query.Del(name)
		}
	}
	if query.Has("skip_verify") {
		return errors.New("parameter skip_verify: expected ca=FILE with the authority of the server's certificate")
	}
	u.RawQuery = query.Encode()
	if err := params.Read(own.Encode(), known); err != nil {
		return err
	}
	b.tls.On = u.Scheme == "rediss"
	return b.tls.Check("expected rediss://")
}

// As sets *target to a client, if it is a **redis.Client.
func (b *backend) As(target any) bool {
	t, ok := target.(**redis.Client)
	if !ok {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		opts := *b.opts
		b.client = redis.NewClient(&opts)
	}
	*t = b.client
	return true
}

func (b *backend) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		return nil
	}
	err := b.client.Close()
	b.client = nil
	return err
}
