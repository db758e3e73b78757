package dns

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/steady"
)

func init() {
	drivers.Register("dns", func(_ context.Context, url string, _ *drivers.Options) (drivers.Backend, error) {
		return Open(url)
	})
}

// nothing is a registry without instances that accepts all and keeps none.
type nothing = discovery.Static

// Registry looks instances up in the Domain Name System. Register and Deregister only validate the
// instance, because others write the records. It holds no resources between look-ups. All methods
// may be called concurrently.
type Registry struct {
	nothing
	opts     options
	resolver *net.Resolver
	health   steady.Health // of the watches
}

var _ discovery.Registry = (*Registry)(nil)

// Open returns a registry for a URL as described at the package. It makes no query, so it fails
// only for a URL that cannot be used, with an error that wraps discovery.ErrInvalid.
func Open(url string) (*Registry, error) {
	opts, err := parse(url)
	if err != nil {
		return nil, err
	}
	return newRegistry(opts)
}

func newRegistry(opts options) (*Registry, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Registry{opts: opts, resolver: &net.Resolver{PreferGo: true, StrictErrors: true}}
	var dialer net.Dialer
	r.resolver.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if opts.Server != "" {
			address = opts.Server
		}
		if opts.Protocol == "tcp" {
			network = "tcp"
		}
		return dialer.DialContext(ctx, network, address)
	}
	return r, nil
}

// Registry returns r, as package drivers asks for it.
func (r *Registry) Registry() (discovery.Registry, error) { return r, nil }

// Healthy returns nil, or why the watches that wait for the name server do so. It makes no query.
func (r *Registry) Healthy() error { return r.health.Err() }

// Close implements drivers.Backend; there is nothing to free.
func (r *Registry) Close(context.Context) error { return nil }

// Watch implements discovery.Resolver; it always returns nil. It calls update once the server has
// answered for the first time. A name that cannot be one label of a domain name, such as one with a
// dot, has no instances, and the server is not asked.
func (r *Registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if !label.MatchString(service) {
		return r.nothing.Watch(ctx, service, update)
	}
	tell, misses := discovery.Changes(update), 0
	defer r.health.Note(&misses, nil)
	for {
		pause := spread(r.opts.Interval)
		list, err := r.lookup(ctx, service)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = steady.Delay(misses, 0, 5*time.Second)
			if misses++; misses >= lostAfter {
				r.health.Note(&misses, err)
			}
		default:
			misses = 0
			r.health.Note(&misses, nil)
			tell(list)
		}
		if !steady.Sleep(ctx, pause) {
			return nil
		}
	}
}

// lostAfter is the number of failed look-ups in a row after which the server counts as lost: a
// single UDP packet is easily lost.
const lostAfter = 2

// spread returns d ±10 %, so that programs that started together do not keep querying together.
func spread(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
