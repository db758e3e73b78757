package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// errRestarted ends a session: another server answers at the address, or the same one
// started again and may have got back data from before.
var errRestarted = errors.New("redis was restarted")

// A session is connections to one run of one server. It ends with the first error;
// then the link begins another.
type session struct {
	client    *redis.Client
	take, put *redis.Script
	service   string

	mu   sync.Mutex
	run  string // the server's run id, shortened; noRun when it may not be asked
	base string // what keys begin with; like run, never changed after the first connection
}

const noRun = "-"

func newSession(opts redis.Options, service string, limit time.Duration) *session {
	s := &session{service: service, take: redis.NewScript(takeLease), put: redis.NewScript(putValue)}
	opts.MaxRetries = -1 // the link decides
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = limit, limit, limit, limit
	opts.ContextTimeoutEnabled, opts.DialerRetries, opts.DisableIdentity = true, 1, true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	dial := redis.NewDialer(&opts)
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return &deadConn{err: err}, nil //nolint:nilerr // told at the first use
		}
		return conn, nil
	}
	opts.OnConnect = s.checkRun
	s.client = redis.NewClient(&opts)
	return s
}

// place is the key in Redis of a cache's key. With the run id in it, what a server
// brings back from before its restart is never found, and ends with its TTL.
func (s *session) place(name string) string { return s.base + name }

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

// probe does once all that a cache does.
func (s *session) probe(ctx context.Context) error {
	if err := s.client.Ping(ctx).Err(); err != nil { // connects, and so learns the run id
		return err
	}
	const end = 1000 // ms
	place, lease := s.place("probe:"+rand.Text()), kindLease+"probe"
	if err := s.take.Run(ctx, s.client, []string{place}, kindValue, lease, end).Err(); err != nil {
		return err
	}
	if err := s.put.Run(ctx, s.client, []string{place}, lease, kindValue, end).Err(); err != nil {
		return err
	}
	return s.client.Del(ctx, place).Err()
}

func (s *session) delete(ctx context.Context, names []string) error {
	places := make([]string, len(names))
	for i, name := range names {
		places[i] = s.place(name)
	}
	return s.client.Del(ctx, places...).Err()
}

// deadConn stands for a connection that could not be made, and fails at its first use.
// The client logs failed dials to standard error; this way only the link's logger tells.
type deadConn struct {
	net.Conn
	err error
}

func (c *deadConn) Read([]byte) (int, error)         { return 0, c.err }
func (c *deadConn) Write([]byte) (int, error)        { return 0, c.err }
func (c *deadConn) Close() error                     { return nil }
func (c *deadConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *deadConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *deadConn) SetDeadline(time.Time) error      { return nil }
func (c *deadConn) SetReadDeadline(time.Time) error  { return nil }
func (c *deadConn) SetWriteDeadline(time.Time) error { return nil }

// reason is a short class of why Redis is away, by which the log tells of a change.
func reason(err error) string {
	if refused, ok := errors.AsType[redis.Error](err); ok {
		word, _, _ := strings.Cut(refused.Error(), " ")
		return word
	}
	return "unreachable"
}

// explain says of an error what to look at.
func explain(err error, setting string) error {
	switch reason(err) {
	case "WRONGPASS", "NOAUTH", "NOPERM":
		return fmt.Errorf("%w: check the user and password in %s", err, setting)
	case "MOVED", "CLUSTERDOWN":
		return fmt.Errorf("%w: %s names a Redis Cluster, expected one server", err, setting)
	}
	return err
}
