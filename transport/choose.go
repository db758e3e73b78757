package transport

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/wanted"
)

// WithVersion makes calls with the context prefer instances of service that have this version, as
// discovery knows it, over the weights of versions. It is for trying a release before others get
// it. If no such instance is listed, the call goes where it would go otherwise. It applies to
// everything that the request causes: calls to services, but not to external targets, carry the
// header Kaptar-Version, which package server puts into the contexts of handlers. Call WithVersion
// once for each service; the version "" removes a service.
//
// Names of services and versions have up to 64 letters, digits and "-", "_", ".", "+", "~", and
// there are at most 16 pairs. What exceeds this has no effect.
func WithVersion(ctx context.Context, service, version string) context.Context {
	return wanted.From(ctx).With(strings.ToLower(service), version).Context(ctx)
}

// WithInstance makes calls with the context go only to the instance with this discovery ID, ejected
// or not. It is for asking every instance, such as a scrape of /metrics. The error is
// ErrNoInstances if the called service does not list the instance or it does not serve the
// protocol. There is one attempt, which breaker, balancer, weights and metrics do not count. The ID
// "" removes the setting. It does not apply to the calls that the instance makes.
func WithInstance(ctx context.Context, id string) context.Context {
	return wanted.From(ctx).Only(id).Context(ctx)
}

// choose returns the instance for the next attempt, if possible another than that of the last one.
// It is nil when no instance can take the call.
func (c *call) choose(now time.Duration) *instance {
	if c.alone {
		return c.tg.listed(c.wants.Instance, c.proto)
	}
	p := c.tg.choices(now)
	from, versions, shares := p.groups[c.proto], p.versions[c.proto], p.shares[c.proto]
	if versions != nil {
		if version := c.wants.Version(c.tg.service); version != "" && len(versions[version]) > 0 {
			from = versions[version]
		} else if version, ok := c.stays(shares); ok {
			from = versions[version]
		}
	}
	return from.pick(&c.tg.calls, now, c.in)
}

// stays returns the version to which a call is bound while there are weights of versions. A further
// attempt stays with the version of the first, and a call with a key with that of its key.
func (c *call) stays(shares []share) (version string, ok bool) {
	if c.in != nil && slices.ContainsFunc(shares, func(s share) bool { return s.version == c.in.version }) {
		return c.in.version, true
	}
	if c.t.opts.Sticky != nil && len(shares) > 0 {
		if key := c.t.opts.Sticky(c.ctx); key != "" {
			return rendezvous(shares, hash(hash(0, c.tg.service), key)), true
		}
	}
	return "", false
}

// listed returns the instance with an ID, nil if it is not listed or does not serve the protocol.
func (t *target) listed(id string, proto protocol) *instance {
	list := t.instances()
	i, ok := slices.BinarySearchFunc(list, id, func(in *instance, id string) int { return strings.Compare(in.ID, id) })
	if !ok || !list[i].serves(proto, t.local.table()) {
		return nil
	}
	return list[i]
}

// share is the weight of a version that has instances that are not ejected.
type share struct {
	version string
	weight  float64
	hash    uint64
}

// rendezvous returns the version of a key by weighted rendezvous hashing (Schindelhauer and
// Schomaker, "Weighted Distributed Hash Tables", SPAA 2005). Each version gets its share of many
// keys, all callers agree, the order of the list does not matter, and a version whose share grows
// keeps its keys. The name of the version is hashed too, so that a new release begins with other
// users than the last.
func rendezvous(shares []share, key uint64) (version string) {
	return slices.MaxFunc(shares, func(a, b share) int { return cmp.Compare(a.score(key), b.score(key)) }).version
}

func (s share) score(key uint64) float64 {
	u := (float64(mix(key^s.hash)>>11) + 0.5) / (1 << 53) // in (0, 1)
	return s.weight / -math.Log(u)
}

// hash adds text to a hash. It is FNV-1a, the same in every process, with a final mix so that every
// bit of the result depends on all of the text.
func hash(seed uint64, text string) uint64 {
	h := seed ^ 0xcbf29ce484222325
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 0x100000001b3
	}
	return mix(h)
}

// mix is the finalizer of MurmurHash3.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
