// Package redis is Redis for package cache, behind redis:// and rediss:// URLs:
//
//	import _ "github.com/kaptar/kaptar/drivers/redis"
//
// One server, or one primary with replicas, will do; Redis Cluster will not. The URL is
// redis://user:password@host:6379/0, with the parameters of go-redis; rediss:// is TLS. Nothing
// connects when it is opened: a service starts without its Redis. As gives a *redis.Client of
// go-redis on the same server, which the backend closes.
package redis

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/redact"
)

func init() {
	drivers.Register("redis", open)
	drivers.Register("rediss", open)
}

// Session is what package cache asks for by the same name, where its methods are described.
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

	mu     sync.Mutex
	client *redis.Client // for As
}

func open(_ context.Context, rawURL string, _ *drivers.Options) (drivers.Backend, error) {
	const want = "expected redis://user:password@host:6379/0, or rediss:// for TLS"
	shown, _, _ := strings.Cut(redact.URL(rawURL), "?")
	if _, err := url.Parse(rawURL); err != nil { // its text repeats the password
		if !strings.Contains(rawURL, "@") { // what looks like the host may be one
			shown, _, _ = strings.Cut(shown, "://")
		}
		return nil, fmt.Errorf("redis: url %q: no URL (is a character of the password not escaped?): %s", shown, want)
	}
	opts, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("redis: url %q: %w: %s", shown, err, want)
	}
	return &backend{opts: opts}, nil
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
