package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

const (
	callTimeout = 10 * time.Second // of each call whose context has no deadline
	dialTimeout = 5 * time.Second
)

var (
	errClosed = errors.New("connection closed")
	errLost   = errors.New("connection lost") // the cause of a call's end when the connection broke under it
)

// A connection to a NATS server or cluster, with JetStream. It reconnects for ever. Its methods may
// be called concurrently.
type connection struct {
	*nats.Conn
	js  jetstream.JetStream
	url string // the servers, redacted

	// Both are set before connect is called.
	reconnected func()                          // called after each reconnection
	denied      func(subject string, err error) // the user may not publish there; nobody is answered then

	mu    sync.Mutex
	since time.Time // when the connection was lost; zero: it is there
	lost  error     // why

	// link ends with the cause when the connection is lost, and is another one after each
	// reconnection: an answer that was awaited over the old connection will not come.
	link context.Context
	cut  context.CancelCauseFunc
	up   chan struct{} // closed while connected

	ending sync.Once
	done   chan struct{} // closed by close
}

func newConnection(servers string) *connection {
	c := &connection{url: redact.URL(servers), up: make(chan struct{}), done: make(chan struct{})}
	c.link, c.cut = context.WithCancelCause(context.Background())
	return c
}

// connect tries for 5 s, or until the deadline of ctx. If no server answers, that is no error: the
// connection is retried for ever. Refused credentials are an error.
func (c *connection) connect(ctx context.Context, servers string, opts ...nats.Option) error {
	if err := c.dial(ctx, servers, opts); err != nil {
		return fmt.Errorf("nats: connect to %s: %w", c.url, explained(err))
	}
	return nil
}

func (c *connection) dial(ctx context.Context, servers string, opts []nats.Option) error {
	given, err := credentials(servers)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	failed := make(chan error, 1)
	options := slices.Concat(given, opts, c.options(time.Until(deadline), failed))
	if c.Conn, err = nats.Connect(servers, options...); err != nil {
		return err
	}
	if c.IsConnected() {
		c.connected()
	} else if err := c.first(ctx, failed); err != nil {
		c.Conn.Close()
		return err
	}
	// Only errors of whole calls matter here: this timeout must be longer than the wait for them.
	c.js, err = jetstream.New(c.Conn, jetstream.WithPublishAsyncTimeout(2*callTimeout), jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		c.Conn.Close()
	}
	return err
}

// first waits for the result of the first attempt, and returns it if waiting will not help.
func (c *connection) first(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		if refused(err) {
			return err
		}
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
			return cause
		}
	}
	return nil
}

// refused reports whether err is about credentials or certificates.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) ||
		errors.Is(err, nats.ErrSecureConnWanted) || tlsfiles.ExplainFirst(err, cutInTLS(err)) != err //nolint:errorlint // the same value
}

func (c *connection) options(timeout time.Duration, failed chan<- error) []nats.Option {
	return []nats.Option{
		nats.Timeout(timeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // the password may be corrected at the server
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			return steady.Delay(attempts, 50*time.Millisecond, 5*time.Second)
		}),
		nats.ReconnectBufSize(-1), // a lost connection must fail a call now: later its message could overtake others
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			c.disconnected(err)
			select {
			case failed <- err:
			default:
			}
		}),
		nats.ConnectHandler(func(*nats.Conn) { c.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { c.connected() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.violated(err) }), // the default one prints
	}
}

// violated passes on which subject the user may not publish to. Callers get all other errors.
func (c *connection) violated(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	if _, rest, ok := strings.Cut(err.Error(), `Publish to "`); ok {
		subject, _, _ := strings.Cut(rest, `"`)
		c.denied(subject, err)
	}
}

// disconnected records that there is no connection, and why. It is also called after each failed
// attempt to reconnect: a wrong password says more than the broken connection did. The client
// library calls its handlers one by one.
func (c *connection) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil || refused(err) {
		c.lost = explained(err)
	}
	if !c.since.IsZero() {
		return
	}
	c.since = time.Now()
	if ended(c.up) { // else there was no connection yet
		c.up = make(chan struct{})
	}
	c.cut(errLost)
}

func (c *connection) connected() {
	c.mu.Lock()
	if ended(c.up) {
		c.mu.Unlock()
		return // reported twice
	}
	again := !c.since.IsZero()
	c.since, c.lost = time.Time{}, nil
	if c.link.Err() != nil {
		c.link, c.cut = context.WithCancelCause(context.Background())
	}
	close(c.up)
	c.mu.Unlock()
	if again {
		c.reconnected()
	}
}

// healthy returns nil while there is a connection, else since when and why there is none.
func (c *connection) healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ended(c.done):
		return fmt.Errorf("nats: %w", errClosed)
	case c.IsConnected():
		return nil
	case c.since.IsZero(): // the library has noticed and not reported it yet
		return fmt.Errorf("nats: no connection to %s", c.url)
	}
	return fmt.Errorf("nats: no connection to %s since %s: %w", c.url, c.since.Format(time.RFC3339), cmp.Or(c.lost, errLost))
}

// wait returns nil once there is a connection. If ctx ends first it returns what healthy says.
func (c *connection) wait(ctx context.Context) error {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	if ended(c.done) {
		return fmt.Errorf("nats: %w", errClosed)
	}
	select {
	case <-up:
		return nil
	case <-c.done:
		return fmt.Errorf("nats: %w", errClosed)
	case <-ctx.Done():
		if err := c.healthy(); err != nil {
			return err
		}
		return fmt.Errorf("nats: %w", context.Cause(ctx))
	}
}

// currentLink returns a context that ends when the present connection is lost.
func (c *connection) currentLink() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// bound gives ctx a deadline if it has none, and ends it when the connection is lost.
func (c *connection) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stopTimer := steady.Bound(ctx, callTimeout)
	ctx, stop := steady.Join(ctx, c.currentLink())
	return ctx, func() {
		stop()
		stopTimer()
	}
}

// cause replaces an error that comes from the end of ctx by the reason for that end, and marks
// those of a closed connection with errClosed.
func (c *connection) cause(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) { // never when ctx goes on
		err = context.Cause(ctx)
	}
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrConnectionClosed) {
		return fmt.Errorf("%w: %w", errClosed, err)
	}
	return err
}

// stream finds a stream or makes it.
func (c *connection) stream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := c.js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = c.js.CreateStream(ctx, config)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another program made it first
			stream, err = c.js.Stream(ctx, config.Name)
		}
	}
	return stream, err
}

// close flushes for up to 2 s within ctx and closes. A second call does nothing.
func (c *connection) close(ctx context.Context) {
	c.ending.Do(func() {
		close(c.done)
		if c.IsConnected() {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_ = c.FlushWithContext(ctx) // what is lost comes again, or its time runs out
		}
		c.Conn.Close()
	})
}

// ended reports whether c, on which nothing is sent, is closed.
func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// explained adds advice to an error, and hides credentials that it quotes.
func explained(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrAuthorization):
		err = fmt.Errorf("the URL's user, password, token or creds is wrong: %w", err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		err = fmt.Errorf("the server has no TLS: use nats:// without tls, ca, cert and key: %w", err)
	default:
		err = tlsfiles.ExplainFirst(err, cutInTLS(err))
	}
	if text := redact.URL(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// cutInTLS reports whether the server has cut the connection right after the handshake, for which
// the client has no error of its own.
func cutInTLS(err error) bool {
	return err != nil && strings.Contains(err.Error(), "after TLS handshake")
}
