package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// remote is the engine of one cache in Redis. Under a key there is either a value or
// the lease of the one who loads it, so that a plain DEL takes away both.
type remote struct {
	link   *link
	prefix string // of its keys
	value  []byte // what a value begins with: its kind and the shape of T
}

// Kinds of what is under a key.
const (
	kindValue = "V"
	kindLease = "L"
)

var _ engine = (*remote)(nil)

// errAway is why nothing was asked or stored.
var errAway = errors.New("redis is away")

func newRemote(l *link, name, shape string, ttl time.Duration) *remote {
	l.keeps(ttl)
	return &remote{link: l, prefix: name + ":", value: []byte(kindValue + shape)}
}

// takeLease answers with what is under the key, or after putting a new lease there with that.
// A value of another shape, and what is no string at all, count as nothing.
const takeLease = `
local v = redis.pcall('GET', KEYS[1])
if type(v) == 'string' and (string.sub(v, 1, 1) == 'L' or string.sub(v, 1, #ARGV[1]) == ARGV[1]) then return v end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]`

// putValue replaces a lease by the value that was loaded under it.
const putValue = `
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`

func (r *remote) get(key string) (value []byte, lease string, err error) {
	err = r.link.use(func(ctx context.Context, s *session) error {
		value, lease, err = r.getFrom(ctx, s, key)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return value, lease, nil
}

func (r *remote) getFrom(ctx context.Context, s *session, key string) (value []byte, lease string, err error) {
	place := s.place(r.prefix + key)
	raw, err := s.client.Get(ctx, place).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) && !strings.HasPrefix(err.Error(), "WRONGTYPE ") {
		return nil, "", err
	}
	if value, lease = r.parse(raw); value != nil || lease != "" {
		return value, lease, nil
	}
	text, err := s.take.Run(ctx, s.client, []string{place}, r.value, kindLease+rand.Text(), loadLimit.Milliseconds()).Text()
	if err != nil {
		return nil, "", err
	}
	value, lease = r.parse([]byte(text))
	return value, lease, nil
}

func (r *remote) parse(raw []byte) (value []byte, lease string) {
	if value, ok := bytes.CutPrefix(raw, r.value); ok {
		return value, ""
	}
	if bytes.HasPrefix(raw, []byte(kindLease)) {
		return nil, string(raw)
	}
	return nil, ""
}

// put leaves the lease of a load that failed to its end: others may hold it too.
func (r *remote) put(key, lease string, value []byte, ttl time.Duration) {
	if value == nil {
		return
	}
	_ = r.link.use(func(ctx context.Context, s *session) error { // what is not stored is loaded again
		stored := append(bytes.Clone(r.value), value...)
		return s.put.Run(ctx, s.client, []string{s.place(r.prefix + key)}, lease, stored, ttl.Milliseconds()).Err()
	})
}

func (r *remote) delete(keys ...string) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = r.prefix + key
	}
	return r.link.delete(names)
}
