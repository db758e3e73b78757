// Package cache keeps what is read often and changes seldom, such as the user behind
// GET /users/{id}, in Redis or in the process.
//
//	users, err := cache.New[User](app, "users", nil)
//	…
//	u, err := users.Get(ctx, id, func(ctx context.Context) (User, error) { return store.byID(ctx, id) })
//	…
//	err = users.Delete(ctx, id) // after the transaction that changed the user has committed
//
// # Where values are
//
// The setting redis_url names the server, or else redis_host, which is localhost by default; the
// program imports drivers/redis. Systems that share a server take a database number each:
// redis://host/1.
//
// With redis_host set to nothing, as package local has it by default, each cache is in the process.
// Then instances of a service do not hear of each other's Delete, and a changed value can be seen
// for up to Options.TTL: several want Redis.
//
// # A value that was deleted is not seen again
//
// A miss takes a lease, which Delete takes away, and a value is stored only under its lease. So a
// reader that loaded the old row cannot store it after the writer's Delete, on any instance that
// shares the Redis or in the process.
//
// Keys carry the run id of the server, so what a restarted Redis has kept from before is not used.
// Where INFO is forbidden there is no run id: that is logged, and a restart that brings back old
// data can bring back deleted values until their TTL ends.
//
// # When Redis is away
//
// Get then calls load each time, and never fails because of Redis. One command that fails or takes
// longer than 250 ms is enough: from then on only a background task asks Redis (after 100 ms,
// doubled up to 5 s), so requests do not wait. The log says once that Redis is lost, why, and which
// setting names it, and once that it is back. Readiness does not change. What Delete could not do
// is done before Redis is used again.
package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
)

const (
	loadLimit = 30 * time.Second // of one load, and of the lease under which its value is stored
	maxValue  = 1 << 20          // bytes of JSON; what is larger is not stored
)

// Options configure a Cache. The zero value is ready to use.
type Options struct {
	// TTL is how long a stored value is used at most; default one minute. Each is used up to a
	// tenth shorter, so that those stored together do not end together.
	TTL time.Duration
	// Size is how many values are kept in the process, where those used longest ago make room for
	// new ones; default 10,000. Redis has maxmemory, and should have maxmemory-policy allkeys-lru.
	Size int
}

// An engine holds values under keys, each together with the lease for storing it.
type engine interface {
	// get returns the value; or else the lease of key, the one it has or a new one. With
	// an error nothing can be stored.
	get(key string) (value []byte, lease string, err error)
	// put stores value if key still has that lease. Without a value it may end the lease.
	put(key, lease string, value []byte, ttl time.Duration)
	// delete removes values and leases.
	delete(keys ...string) error
}

// A Cache is read through: what it does not have it loads. Its methods may be called concurrently.
type Cache[T any] struct {
	name   string
	ttl    time.Duration
	engine engine
	loads  *loads

	hits, misses, errors prometheus.Counter
}

var cacheName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// New returns the service's cache of that name, for use during Setup; a second one of the same name
// is an error, and so are settings that name no Redis or one without its driver. A Redis that does
// not answer yet is no error. Options may be nil.
//
// Values are kept as JSON. During a rollout two versions of T may share the cache: a value that was
// stored with other fields or types than T has now is loaded again and replaced. Take another name
// when the meaning of a field changes but not its type.
func New[T any](app *kaptar.App, name string, opts *Options) (*Cache[T], error) {
	o := *cmp.Or(opts, new(Options))
	o.TTL, o.Size = cmp.Or(o.TTL, time.Minute), cmp.Or(o.Size, 10_000)
	switch {
	case !cacheName.MatchString(name):
		return nil, fmt.Errorf("cache: name %q: expected lower-case letters, digits, '-' and '_', starting with a letter", name)
	case o.TTL < time.Millisecond:
		return nil, fmt.Errorf("cache: %s: TTL %v: expected a millisecond or more", name, o.TTL)
	case o.Size < 0:
		return nil, fmt.Errorf("cache: %s: size %d: expected a positive number", name, o.Size)
	}
	s, err := sharedOf(app)
	if err != nil {
		return nil, err
	}
	if err := s.reserve(name); err != nil {
		return nil, err
	}
	var e engine = newMemory(o.Size)
	if s.link != nil {
		e = newRemote(s.link, name, shapeOf[T](), o.TTL)
	}
	return newCache[T](s.stop, e, name, o.TTL, s.requests.MustCurryWith(prometheus.Labels{"cache": name})), nil
}

func newCache[T any](stop context.Context, e engine, name string, ttl time.Duration, requests *prometheus.CounterVec) *Cache[T] {
	return &Cache[T]{
		name: name, ttl: ttl, engine: e, loads: newLoads(stop),
		hits: requests.WithLabelValues("hit"), misses: requests.WithLabelValues("miss"), errors: requests.WithLabelValues("error"),
	}
}

// Get returns the value of key, from the cache or from load.
//
// Callers in this process that miss the same key at the same time share one load. It runs with the
// values of the first one's context, the principal of package auth included, and what it returns is
// for all who ask for the key: what depends on who asks needs them in the key. It has 30 seconds;
// whoever cannot wait goes with the error of their own context. load must not read through a transaction that has not committed. Its error, or
// panic, goes as an error to all who share it and is not kept; neither is a value of more than 1
// MiB of JSON.
func (c *Cache[T]) Get(ctx context.Context, key string, load func(context.Context) (T, error)) (T, error) {
	var value T
	if err := ctx.Err(); err != nil {
		return value, c.wrap(key, err)
	}
	raw, lease, err := c.engine.get(key)
	switch {
	case err != nil:
		c.errors.Inc()
	case raw == nil:
		c.misses.Inc()
	case json.Unmarshal(raw, &value) == nil:
		c.hits.Inc()
		return value, nil
	default: // it is no T, whoever wrote it
		c.misses.Inc()
		value = *new(T)
		_ = c.engine.delete(key) // what fails here is tried again by the next one who gets key
		if raw, lease, err = c.engine.get(key); err != nil || raw != nil {
			lease = ""
		}
	}
	raw, err = c.loads.do(ctx, key, lease, func(ctx context.Context) ([]byte, error) { return c.load(ctx, key, lease, load) })
	if err != nil {
		return value, err
	}
	return value, c.wrap(key, json.Unmarshal(raw, &value))
}

// load gets the value from its source and stores it.
func (c *Cache[T]) load(ctx context.Context, key, lease string, load func(context.Context) (T, error)) (raw []byte, err error) {
	stored := false
	defer func() {
		if !stored && lease != "" {
			c.engine.put(key, lease, nil, 0)
		}
	}()
	value, err := load(ctx)
	if err != nil {
		return nil, err
	}
	if raw, err = json.Marshal(value); err != nil {
		return nil, c.wrap(key, err)
	}
	if stored = lease != "" && len(raw) <= maxValue; stored {
		c.engine.put(key, lease, raw, max(c.ttl-rand.N(c.ttl/10+1), time.Millisecond))
	}
	return raw, nil
}

// Delete makes the next Get of each key load it again. Call it after the transaction that changed
// the value has committed, and again from the service's own subscription to the event of that
// change, as the process can end in between.
//
// In Redis the values are gone for all instances when Delete returns nil. When Redis cannot be
// reached it returns an error, for the event's handler to be tried again: until some Delete
// succeeds other instances may see the old values, for TTL and 30 seconds at most. This instance
// does not, as it deletes them there before it uses Redis again.
//
// ctx only carries values: a request that has gone away is no reason not to delete.
func (c *Cache[T]) Delete(_ context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	c.loads.forget(keys...)
	if err := c.engine.delete(keys...); err != nil {
		return fmt.Errorf("cache: delete from %s: %w", c.name, err)
	}
	return nil
}

func (c *Cache[T]) wrap(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cache: %s %q: %w", c.name, key, err)
}
