package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// A Session is connections to one run of a server that keeps values for all instances of a service,
// such as drivers/redis has. Every error ends it. A driver offers it by a method
// Session(service string, limit time.Duration) Session, where limit bounds each command; keys of
// different services are apart.
type Session = interface {
	// Take returns the value under key, if it was put with that shape. Else it returns the lease
	// for putting one: the one that key has, or one made of lease, which ends after ttl.
	Take(ctx context.Context, key, shape, lease string, ttl time.Duration) (value []byte, holder string, err error)
	// Put replaces the lease called holder by a value that ends after ttl. When key has another
	// lease or none it does nothing.
	Put(ctx context.Context, key, shape, holder string, value []byte, ttl time.Duration) error
	// Delete takes values and leases away.
	Delete(ctx context.Context, keys []string) error
	// Count takes one of those that may come under key, one every so often and burst at once. It
	// returns 0, or without taking one after what time the next may come.
	Count(ctx context.Context, key string, every time.Duration, burst int) (wait time.Duration, err error)
	// Probe does once all that a cache does. restarts reports whether the session would notice that
	// the server was restarted with older data.
	Probe(ctx context.Context) (restarts bool, err error)
	Close() error
}

// remote is the engine of one cache on a server.
type remote struct {
	link          *link
	prefix, shape string // of its keys, and of T
}

// errAway is why nothing was asked or stored.
var errAway = errors.New("redis is away")

func newRemote(l *link, name, shape string, ttl time.Duration) *remote {
	l.keeps(ttl)
	return &remote{link: l, prefix: name + ":", shape: shape}
}

func (r *remote) get(key string) (value []byte, lease string, err error) {
	err = r.link.use(func(ctx context.Context, s Session) error {
		value, lease, err = s.Take(ctx, r.prefix+key, r.shape, rand.Text(), loadLimit)
		return err
	})
	return value, lease, err
}

// put leaves the lease of a load that failed to its end: others may hold it too.
func (r *remote) put(key, lease string, value []byte, ttl time.Duration) {
	if value == nil {
		return
	}
	_ = r.link.use(func(ctx context.Context, s Session) error { // what is not stored is loaded again
		return s.Put(ctx, r.prefix+key, r.shape, lease, value, ttl)
	})
}

func (r *remote) delete(keys ...string) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = r.prefix + key
	}
	return r.link.delete(names)
}
