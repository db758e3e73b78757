package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	heartbeat    = 10 * time.Second // two missed ones end the connection
	writeTimeout = 10 * time.Second // a server that is short of memory or disk stops reading
	dialTimeout  = 5 * time.Second
)

// newBackoff returns the backoff for retries after the server was lost.
func newBackoff() steady.Backoff {
	return steady.Backoff{First: 50 * time.Millisecond, Max: 2 * time.Second}
}

// A connection is one of the library, with the wire under it.
type connection struct {
	*amqp.Connection

	wire *wire
}

// A link is a connection that is restored when it is lost. A Broker has two: RabbitMQ short of
// memory stops reading from connections that publish, and acknowledgements free it.
type link struct {
	b *Broker

	mu      sync.Mutex
	conn    *connection     // nil: lost
	since   time.Time       // when the connection was lost
	lost    error           // why
	blocked string          // why the server takes no messages; "" if it does
	up      chan struct{}   // closed while there is a connection
	free    []*channel      // for publishing
	known   map[string]bool // exchanges that exist

	deleted map[string]time.Time // when exchanges were found missing
}

func newLink(b *Broker) *link {
	return &link{b: b, up: make(chan struct{}), known: make(map[string]bool), deleted: make(map[string]time.Time)}
}

// open makes the first connection and starts keep. Servers that cannot be reached are no error.
func (l *link) open(ctx context.Context) error {
	conn, err := l.dial(ctx)
	if err != nil && !steady.Unreachable(err) {
		return err
	}
	l.since, l.lost = time.Now(), err
	l.b.work.Go(func() { l.keep(conn) })
	return nil
}

// dial connects to the first server that answers. The error is that of the last one.
func (l *link) dial(ctx context.Context) (conn *connection, err error) {
	for _, server := range l.b.servers {
		if conn, err = l.b.dial(ctx, server); err == nil {
			l.connected(conn)
			return conn, nil
		}
	}
	return nil, err
}

func (b *Broker) dial(ctx context.Context, server string) (*connection, error) {
	deadline := time.Now().Add(dialTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	uri, err := amqp.ParseURI(server)
	if err != nil {
		return nil, err
	}
	uri.Scheme = "amqp" // the library would hide why TLS fails, so TLS is begun below
	var raw *wire
	stop := func() bool { return true }
	conn, err := amqp.DialConfig(uri.String(), amqp.Config{
		Heartbeat:  heartbeat,
		Properties: amqp.Table{"product": "kaptar", "connection_name": b.opts.Client},
		Dial: func(network, address string) (net.Conn, error) {
			bounded, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			conn, err := new(net.Dialer).DialContext(bounded, network, address)
			if err == nil && b.opts.tls.On {
				conn, err = b.opts.tls.Handshake(bounded, conn, uri.Host)
			}
			if err != nil {
				return nil, err
			}
			raw = &wire{Conn: conn}
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			return raw, conn.SetDeadline(deadline) // the library lifts it after the handshake
		},
	})
	if !stop() && err == nil {
		_ = raw.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, b.explain(ctx, &uri, raw, err)
	}
	return &connection{conn, raw}, nil
}

// explain says what is wrong with a server's URL. If its reader notices the end before its first
// write, the library says only "closed"; raw, unless it is nil, has the reason.
func (b *Broker) explain(ctx context.Context, uri *amqp.URI, raw *wire, err error) error {
	over := code(err) == amqp.FrameError || code(err) == amqp.ChannelError
	if over && raw != nil {
		err = raw.reason(err)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, amqp.ErrCredentials):
		return fmt.Errorf("the user %q or its password is wrong: %w", uri.Username, err)
	case errors.Is(err, amqp.ErrVhost) || code(err) == amqp.NotAllowed:
		return fmt.Errorf("the virtual host %q does not exist, or the user %q has no access to it: %w", uri.Vhost, uri.Username, err)
	case over && !b.opts.tls.On:
		return fmt.Errorf("the server at that port does not speak AMQP; if it wants TLS, use amqps://: %w", err)
	}
	return tlsfiles.ExplainFirst(err, b.opts.tls.On)
}

// connected makes conn the link's connection. Everything known from the last one is forgotten,
// because the server may have lost it.
func (l *link) connected(conn *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.lost, l.blocked, l.free = conn, nil, "", nil
	clear(l.known)
	close(l.up)
}

// keep watches the connection and makes a new one whenever it is lost, until the Broker is closed.
// conn is nil if the first one could not be made.
func (l *link) keep(conn *connection) {
	for conn == nil || l.watch(conn) {
		var err error
		for backoff := newBackoff(); ; {
			if !steady.Sleep(l.b.ctx, backoff.Next()) {
				return
			}
			if conn, err = l.dial(l.b.ctx); err == nil {
				break
			}
			l.mu.Lock()
			l.lost = err
			l.mu.Unlock()
		}
	}
}

// watch returns true when the connection was lost, and false when the Broker was closed.
func (l *link) watch(conn *connection) bool {
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	for {
		select {
		case state, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			l.mu.Lock()
			l.blocked = ""
			if state.Active {
				l.blocked = "the server takes no messages: " + state.Reason
			}
			l.mu.Unlock()
		case reason := <-closed: // nil when it was closed before
			l.mu.Lock()
			l.conn, l.since, l.lost, l.up = nil, time.Now(), errLost, make(chan struct{})
			if reason != nil {
				l.lost = reason
			}
			l.mu.Unlock()
			return !l.b.isClosed()
		}
	}
}

// current returns the connection, or an error that says since when there is none.
func (l *link) current() (*connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.isClosed() {
		return nil, fmt.Errorf("rabbitmq: %w", driver.ErrClosed)
	}
	if l.conn == nil {
		return nil, fmt.Errorf("rabbitmq: no connection to %s since %s: %w", l.b.url, l.since.Format(time.RFC3339), l.lost)
	}
	return l.conn, nil
}

// taking returns an error while the server takes no messages.
func (l *link) taking() error {
	if _, err := l.current(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked != "" {
		return fmt.Errorf("rabbitmq: %s: %s", l.b.url, l.blocked)
	}
	return nil
}

// wait returns when there is a connection or ctx ends.
func (l *link) wait(ctx context.Context) {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
	}
}

// close closes the connection. It blocks while the server does not answer.
func (l *link) close() {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		_ = conn.CloseDeadline(time.Now().Add(callTimeout)) // what did not arrive comes again
	}
}

// cut ends the connection at once.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.wire.Close()
	}
}

func (l *link) isKnown(exchange string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[exchange]
}

func (l *link) learn(exchange string, exists bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[exchange] = exists
}
