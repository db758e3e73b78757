package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// What a key holds: a value, or the lease of the caller that loads it. DEL removes both.
const (
	kindValue = "V"
	kindLease = "L"
)

// takeLease returns what the key holds. If that is nothing, it stores a new lease there and returns
// that. A value of another shape counts as nothing, and so does anything but a string.
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

// countOne is the generic cell rate algorithm. The key holds the theoretical arrival time, in
// microseconds of the server's clock.
const countOne = `
local t = redis.call('TIME')
local now, every = t[1] * 1000000 + t[2], tonumber(ARGV[1])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + every
local wait = due - now - every * ARGV[2]
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
return 0`

// errRestarted ends a session: the server was restarted, maybe with older data, or another one has
// taken its address.
var errRestarted = errors.New("redis was restarted")

// A session is connections to one run of one server, closed after the first error.
type session struct {
	client    *redis.Client
	take, put *redis.Script
	count     *redis.Script
	service   string
	tls       bool

	mu   sync.Mutex
	run  string // the server's run id, shortened; noRun when it may not be asked
	base string // prefix of the keys; like run, set by the first connection and not changed
}

const noRun = "-"

// Session returns connections for one service, whose keys are apart from those of others. They are
// made on demand. limit bounds each command and each connection attempt. Call Probe first; the
// other methods may be called concurrently after it.
func (b *backend) Session(service string, limit time.Duration) Session {
	opts := *b.opts
	s := &session{service: service, tls: b.tls.On, take: redis.NewScript(takeLease), put: redis.NewScript(putValue), count: redis.NewScript(countOne)}
	opts.MaxRetries = -1 // the caller decides
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = limit, limit, limit, limit
	opts.ContextTimeoutEnabled, opts.DialerRetries, opts.DisableIdentity = true, 1, true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := b.tls.Dial(ctx, network, addr)
		if err != nil {
			end, _ := net.Pipe()
			return &deadConn{end, err}, nil //nolint:nilerr // told at the first use
		}
		return conn, nil
	}
	opts.OnConnect = s.checkRun
	s.client = redis.NewClient(&opts)
	return s
}

// at returns the key in Redis. Its run id hides data from before a restart.
func (s *session) at(key string) string { return s.base + key }

func (s *session) Take(ctx context.Context, key, shape, lease string, ttl time.Duration) (value []byte, holder string, err error) {
	at, kind := s.at(key), kindValue+shape
	raw, err := s.client.Get(ctx, at).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) && !strings.HasPrefix(err.Error(), "WRONGTYPE ") {
		return nil, "", s.explain(err)
	}
	if !bytes.HasPrefix(raw, []byte(kind)) && !bytes.HasPrefix(raw, []byte(kindLease)) {
		text, err := s.take.Run(ctx, s.client, []string{at}, kind, kindLease+lease, ttl.Milliseconds()).Text()
		if err != nil {
			return nil, "", s.explain(err)
		}
		raw = []byte(text)
	}
	if value, ok := bytes.CutPrefix(raw, []byte(kind)); ok {
		return value, "", nil
	}
	return nil, string(raw), nil
}

func (s *session) Put(ctx context.Context, key, shape, holder string, value []byte, ttl time.Duration) error {
	return s.explain(s.put.Run(ctx, s.client, []string{s.at(key)}, holder, append([]byte(kindValue+shape), value...), ttl.Milliseconds()).Err())
}

func (s *session) Delete(ctx context.Context, keys []string) error {
	at := make([]string, len(keys))
	for i, key := range keys {
		at[i] = s.at(key)
	}
	return s.explain(s.client.Del(ctx, at...).Err())
}

func (s *session) Count(ctx context.Context, key string, every time.Duration, burst int) (time.Duration, error) {
	us, err := s.count.Run(ctx, s.client, []string{s.at(key)}, max(every.Microseconds(), 1), burst).Int64()
	return time.Duration(us) * time.Microsecond, s.explain(err)
}

func (s *session) Probe(ctx context.Context) (restarts bool, err error) {
	if err := s.client.Ping(ctx).Err(); err != nil { // connects, and so learns the run id
		return false, s.explain(err)
	}
	key := "probe:" + rand.Text()
	_, holder, err := s.Take(ctx, key, "", "probe", time.Second)
	if err == nil {
		err = s.Put(ctx, key, "", holder, nil, time.Second)
	}
	if err == nil {
		err = s.Delete(ctx, []string{key})
	}
	return s.run != noRun, err
}

func (s *session) Close() error { return s.client.Close() }

// checkRun is called with each new connection.
func (s *session) checkRun(ctx context.Context, conn *redis.Conn) error {
	run, err := runID(ctx, conn)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == "" {
		s.run, s.base = run, s.service+":"+run+":"
	}
	if s.run != run {
		return errRestarted
	}
	return nil
}

func runID(ctx context.Context, conn *redis.Conn) (string, error) {
	info, err := conn.Info(ctx, "server").Result()
	if refused, ok := errors.AsType[redis.Error](err); ok && isForbidden(refused) {
		return noRun, nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok && len(id) > 12 {
			return id[:12], nil
		}
	}
	return noRun, nil
}

func isForbidden(err redis.Error) bool {
	return strings.HasPrefix(err.Error(), "NOPERM ") || strings.HasPrefix(err.Error(), "ERR unknown command")
}

// deadConn stands for a connection that could not be made, and fails at its first use. go-redis
// would log a failed dial to standard error; this way only the caller gets the error.
type deadConn struct {
	net.Conn // one end of a pipe, for all the rest
	err      error
}

func (c *deadConn) Read([]byte) (int, error)  { return 0, c.err }
func (c *deadConn) Write([]byte) (int, error) { return 0, c.err }

// explain adds to an error what to look at.
func (s *session) explain(err error) error {
	refused, ok := errors.AsType[redis.Error](err)
	if !ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.run == "" && !s.tls && errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: the server has cut the first connection, as it does when it wants TLS: try rediss://", err)
		}
		return tlsfiles.Explain(err)
	}
	switch word, _, _ := strings.Cut(refused.Error(), " "); word {
	case "WRONGPASS", "NOAUTH", "NOPERM":
		return fmt.Errorf("%w: check the user and password", err)
	case "MOVED", "CLUSTERDOWN":
		return fmt.Errorf("%w: this is a Redis Cluster, expected one server", err)
	}
	return err
}
