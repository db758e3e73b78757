// Package natsconn is the connection to NATS that the drivers for messages, key-value and discovery have in common: URL,
// credentials, reconnection for ever, what is said about a server that is away, and buckets whose changes are followed.
package natsconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/redact"
)

// CallTimeout bounds each call whose context has no deadline.
const CallTimeout = 10 * time.Second

const dialTimeout = 5 * time.Second

var (
	// ErrURL is in the chain of errors about the list of servers itself.
	ErrURL = errors.New("invalid URL")

	// ErrClosed is in the chain of errors after Close.
	ErrClosed = errors.New("connection closed")

	// ErrLost is the cause of a call's end when the connection was lost under it.
	ErrLost = errors.New("connection lost")
)

// A Config says how to connect.
type Config struct {
	Package string // begins error texts
	Servers string // nats://user:password@host1:4222,host2:4222, without parameters

	// Patient makes Connect succeed when no server answers; it is then tried for ever. A server that refuses the credentials is
	// an error all the same.
	Patient bool

	Options     []nats.Option // applied before those of this package
	Reconnected func()        // called after each reconnection; may be nil

	// Denied is called when the user may not publish to a subject; may be nil. The server answers nobody then.
	Denied func(subject string, err error)
}

// A Conn is a connection with JetStream. All methods may be called concurrently.
type Conn struct {
	*nats.Conn
	JS  jetstream.JetStream
	URL string // the servers, redacted

	pkg         string
	reconnected func()
	denied      func(subject string, err error)

	mu     sync.Mutex
	log    *slog.Logger
	closed bool
	told   bool      // the log says that the connection is lost
	since  time.Time // when it was lost
	lost   error     // why

	// link ends with the cause when the connection is lost, and is another one after each reconnection: an answer that was
	// awaited over the old connection will not come.
	link context.Context
	cut  context.CancelCauseFunc
	up   chan struct{} // closed while connected
	done chan struct{} // closed by Close
}

// Connect connects within 5 s or the deadline of ctx.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{
		URL: redact.URL(cfg.Servers), pkg: cfg.Package, reconnected: cfg.Reconnected, denied: cfg.Denied,
		log: slog.New(slog.DiscardHandler), up: make(chan struct{}), done: make(chan struct{}),
	}
	c.link, c.cut = context.WithCancelCause(context.Background())
	fail := func(err error) (*Conn, error) {
		return nil, fmt.Errorf("%s: connect to %s: %w", c.pkg, c.URL, redacted(err))
	}
	given, err := credentials(cfg.Servers)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrURL, err))
	}
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	timeout := dialTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	failed := make(chan error, 1)
	options := slices.Concat(given, cfg.Options)
	options = append(options, c.options(timeout, failed)...)
	if cfg.Patient {
		options = append(options, nats.RetryOnFailedConnect(true))
	}
	if c.Conn, err = nats.Connect(cfg.Servers, options...); err != nil {
		return fail(err)
	}
	if c.Conn.IsConnected() {
		c.connected()
	} else if err := c.first(ctx, failed); err != nil {
		c.Conn.Close()
		return fail(err)
	}
	// Only errors of whole calls matter here: the timeout just has to be longer than the wait for them.
	c.JS, err = jetstream.New(c.Conn, jetstream.WithPublishAsyncTimeout(2*CallTimeout), jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		c.Conn.Close()
		return fail(err)
	}
	return c, nil
}

// first waits for the result of the first try of a patient connection, and returns it if waiting will not help.
func (c *Conn) first(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (c *Conn) options(timeout time.Duration, failed chan<- error) []nats.Option {
	return []nats.Option{
		nats.Name("kaptar"),
		nats.Timeout(timeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a wrong password may be put right at the server
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			limit := min(5*time.Second, 50*time.Millisecond<<min(attempts, 10))
			return limit/2 + rand.N(limit/2+1)
		}),
		nats.ReconnectBufSize(-1), // a lost connection must fail a call now: later its message could overtake others
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			select {
			case failed <- err:
			default:
			}
			c.disconnected(err)
		}),
		nats.ConnectHandler(func(*nats.Conn) { c.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { c.connected() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.violated(err) }), // the default one prints
	}
}

// violated passes on which subject the user may not publish to. Callers get all other errors.
func (c *Conn) violated(err error) {
	if c.denied == nil || !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	if _, rest, ok := strings.Cut(err.Error(), `Publish to "`); ok {
		subject, _, _ := strings.Cut(rest, `"`)
		c.denied(subject, err)
	}
}

// disconnected notes that there is no connection, also after each try to get one: that the password is wrong now says more
// than that the line broke. The client library calls its handlers one by one.
func (c *Conn) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.lost = redacted(err)
	}
	if !c.since.IsZero() {
		return
	}
	c.since = time.Now()
	select {
	case <-c.up:
		c.up = make(chan struct{})
	default: // never was connected
	}
	c.cut(ErrLost)
	c.tell()
}

func (c *Conn) connected() {
	c.mu.Lock()
	select {
	case <-c.up:
		c.mu.Unlock()
		return // told twice
	default:
	}
	again := !c.since.IsZero()
	if c.told {
		c.log.Info("NATS is back", "url", c.URL, "away", time.Since(c.since).Round(time.Millisecond))
	}
	c.since, c.lost, c.told = time.Time{}, nil, false
	if c.link.Err() != nil {
		c.link, c.cut = context.WithCancelCause(context.Background())
	}
	close(c.up)
	c.mu.Unlock()
	if again && c.reconnected != nil {
		c.reconnected()
	}
}

// tell logs once that the server is away. The caller holds c.mu.
func (c *Conn) tell() {
	if !c.told && !c.closed && !c.since.IsZero() && c.log.Enabled(context.Background(), slog.LevelWarn) {
		c.told = true
		c.log.Warn("waiting for NATS", "url", c.URL, "error", c.lost)
	}
}

// SetLogger says where the loss of the connection and its return are logged, once each; at first nowhere.
func (c *Conn) SetLogger(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = log
	c.tell()
}

// Healthy returns nil while there is a connection, else since when there is none and why.
func (c *Conn) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("%s: %w", c.pkg, ErrClosed)
	case c.Conn.IsConnected():
		return nil
	case c.since.IsZero(): // the library noticed just now and did not tell yet
		return fmt.Errorf("%s: no connection to %s", c.pkg, c.URL)
	case c.lost == nil:
		return fmt.Errorf("%s: no connection to %s since %s", c.pkg, c.URL, c.since.Format(time.RFC3339))
	}
	return fmt.Errorf("%s: no connection to %s since %s: %w", c.pkg, c.URL, c.since.Format(time.RFC3339), c.lost)
}

// Wait returns nil once there is a connection. When ctx ends before, it returns what Healthy says.
func (c *Conn) Wait(ctx context.Context) error {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	select {
	case <-c.done:
		return fmt.Errorf("%s: %w", c.pkg, ErrClosed)
	default:
	}
	select {
	case <-up:
		return nil
	case <-c.done:
		return fmt.Errorf("%s: %w", c.pkg, ErrClosed)
	case <-ctx.Done():
		if err := c.Healthy(); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", c.pkg, context.Cause(ctx))
	}
}

// Link returns a context that ends when the connection of now is lost.
func (c *Conn) Link() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// Bound gives ctx a deadline if it has none, and ends it when the connection is lost.
func (c *Conn) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	link := c.Link()
	stopTimer := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, stopTimer = context.WithTimeout(ctx, CallTimeout)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stopWatch := context.AfterFunc(link, func() { cancel(context.Cause(link)) })
	return ctx, func() {
		stopWatch()
		cancel(nil)
		stopTimer()
	}
}

// Cause gives the error of a call with ctx that ended because of ctx the name of what ended it, and marks those of a closed
// connection with ErrClosed.
func (c *Conn) Cause(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) { // never when ctx goes on
		err = context.Cause(ctx)
	}
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrConnectionClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// Close ends the connection; what was sent is flushed within 2 s. A second call does nothing.
func (c *Conn) Close() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		return
	}
	close(c.done)
	if c.Conn.IsConnected() {
		_ = c.Conn.FlushTimeout(2 * time.Second)
	}
	c.Conn.Close()
}

// redacted hides credentials in errors about URLs, which quote them.
func redacted(err error) error {
	if err == nil {
		return nil
	}
	if text := redact.URL(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

func (c *Conn) logger() *slog.Logger {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log
}
