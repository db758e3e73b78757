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

// WithVersion makes calls with the context prefer those instances of service that are of this
// version, as discovery knows it, whatever the weights of versions say: so a release is tried before
// others get it. While no such instance is listed, the call goes where it went otherwise. It holds for
// the whole request: calls to services, but not to external targets, have the header Kaptar-Version,
// which package server reads into the contexts of their handlers. Several services may be named, each
// by a call of its own; a version of "" takes one back.
//
// The names have up to 64 letters, digits and "-", "_", ".", "+", "~", and there are at most 16 of
// them: what cannot be sent is not asked for either.
func WithVersion(ctx context.Context, service, version string) context.Context {
	return wanted.From(ctx).With(strings.ToLower(service), version).Context(ctx)
}

// WithInstance makes calls with the context go to the instance with this discovery ID and to no
// other, ejected or not: for questions to each instance, such as a scrape of /metrics. The error is
// ErrNoInstances when the service that is called does not list it, or it does not serve the protocol.
// There is one attempt, and neither the breaker, the balancer, the weights nor the metrics count it. An
// ID of "" takes the wish back. It does not travel on from the instance.
func WithInstance(ctx context.Context, id string) context.Context {
	return wanted.From(ctx).Only(id).Context(ctx)
}

// choose returns the instance for the next attempt, if possible another than that of the last one.
// It is nil when none may have the call.
func (c *call) choose(now time.Duration) *instance {
	if c.alone {
		return c.tg.listed(c.wants.Instance, c.proto)
	}
	p := c.tg.choices(now)
	versions, calls := p.versions[c.proto], &c.tg.calls
	if versions == nil {
		return p.groups[c.proto].pick(calls, now, c.in)
	}
	if version := c.wants.Version(c.tg.service); version != "" && len(versions[version]) > 0 {
		return versions[version].pick(calls, now, c.in)
	}
	if shares := p.shares[c.proto]; len(shares) > 0 {
		if version, ok := c.stays(shares); ok {
			return versions[version].pick(calls, now, c.in)
		}
	}
	return p.groups[c.proto].pick(calls, now, c.in)
}

// stays returns the version that a call is bound to while there are weights of versions: an attempt to
// that of the one before it, and a call with a key to that of the key.
func (c *call) stays(shares []share) (version string, ok bool) {
	if c.in != nil && slices.ContainsFunc(shares, func(s share) bool { return s.version == c.in.version }) {
		return c.in.version, true
	}
	if c.t.opts.Sticky == nil {
		return "", false
	}
	key := c.t.opts.Sticky(c.ctx)
	if key == "" {
		return "", false
	}
	return rendezvous(shares, hash(hash(0, c.tg.service), key)), true
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

// share is the weight of a version that has instances which are not ejected.
type share struct {
	version string
	weight  float64
	hash    uint64
}

// rendezvous returns the version of a key by weighted rendezvous hashing (Schindelhauer and Schomaker,
// "Weighted Distributed Hash Tables", SPAA 2005): of many keys each version has its share, whoever
// asks, in whatever order versions are listed; and a version whose share grows keeps the keys that it
// has. Each version draws by its own name, so the first users of one release are not those of the
// next.
func rendezvous(shares []share, key uint64) (version string) {
	return slices.MaxFunc(shares, func(a, b share) int { return cmp.Compare(a.score(key), b.score(key)) }).version
}

func (s share) score(key uint64) float64 {
	u := (float64(mix(key^s.hash)>>11) + 0.5) / (1 << 53) // in (0, 1)
	return s.weight / -math.Log(u)
}

// hash adds text to a hash: FNV-1a, the same in every process, and mixed so that all bits depend on all
// others.
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
