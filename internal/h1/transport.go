package h1

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"sync"
	"time"
)

// ErrBody is wrapped by an error for which the request's own body is to blame: it could not be
// read, was shorter or longer than announced, or had not come when the context ended. Nothing of
// such a request was sent.
var ErrBody = errors.New("h1: request body")

// ErrNotLean is what Do returns for a call that is not lean, see the package's doc.
var ErrNotLean = errors.New("h1: not a lean call")

// Options configure a Transport.
type Options struct {
	// Dial connects to an address; default a net.Dialer that gives up after a second.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is for https; nil is an empty configuration. ALPN is always HTTP/1.1.
	TLS *tls.Config
	// ServerName says whose certificate a connection for the call must show, unless TLS does; an
	// empty name, and nil, stand for the URL's host. Connections are shared under one name only.
	ServerName       func(ctx context.Context) string
	HandshakeTimeout time.Duration     // of TLS; default 2 s
	IdlePerHost      int               // connections to one address that wait for a call; default 256
	IdleTimeout      time.Duration     // for how long they do; default 90 s
	Next             http.RoundTripper // takes what is not lean; default http.DefaultTransport
}

// A Transport makes HTTP/1.1 calls, see the package's doc. It may be used concurrently.
type Transport struct {
	opts     Options
	pool     pool
	messages sync.Pool // of *message
}

// New returns a transport; opts may be nil.
func New(opts *Options) *Transport {
	t := &Transport{opts: *cmp.Or(opts, new(Options))}
	o := &t.opts
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: time.Second}).DialContext
	}
	if o.Next == nil {
		o.Next = http.DefaultTransport
	}
	o.TLS = cmp.Or(o.TLS, new(tls.Config))
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 2*time.Second)
	t.pool = pool{limit: cmp.Or(o.IdlePerHost, 256), timeout: cmp.Or(o.IdleTimeout, 90*time.Second), began: time.Now(), hosts: map[key]*host{}}
	t.messages.New = func() any { return new(message) }
	return t
}

// CloseIdleConnections closes the connections that no call uses, ours and Next's. Those in use are
// closed when their call ends.
func (t *Transport) CloseIdleConnections() {
	t.pool.closeIdle()
	if next, ok := t.opts.Next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Do(req.Context(), req, &Change{})
	if errors.Is(err, ErrNotLean) {
		return t.opts.Next.RoundTrip(req)
	}
	return resp, err
}

// Do is RoundTrip in another context, and with a change to the request. It returns ErrNotLean,
// having done nothing, for a call that Options.Next should get.
func (t *Transport) Do(ctx context.Context, req *http.Request, change *Change) (*http.Response, error) {
	m := t.messages.Get().(*message) //nolint:forcetypeassert // the pool has no others
	defer t.messages.Put(m)
	if m.trace = httptrace.ContextClientTrace(ctx); !leanTrace(m.trace) || !m.encode(req, change) {
		return nil, ErrNotLean
	}
	if err := m.load(ctx, cmp.Or(change.Body, req.Body)); err != nil {
		return nil, err
	}
	k := key{host: cmp.Or(change.Host, req.URL.Host), https: change.TLS || req.URL.Scheme == "https"}
	if k.https {
		if t.opts.ServerName != nil {
			k.name = t.opts.ServerName(ctx)
		}
		k.name = cmp.Or(k.name, (&url.URL{Host: k.host}).Hostname())
	}
	for fresh := false; ; fresh = true {
		c, err := t.conn(ctx, k, fresh, m.replay)
		if err != nil {
			return nil, err
		}
		resp, again, err := c.exchange(ctx, req, m)
		if err == nil {
			return resp, nil
		}
		if c.close(); !again {
			return nil, err
		}
	}
}

// leanTrace reports whether t wants to hear of nothing but 1xx responses.
func leanTrace(t *httptrace.ClientTrace) bool {
	if t == nil {
		return true
	}
	others := *t
	others.Got1xxResponse = nil
	return reflect.ValueOf(others).IsZero()
}

// recent is how long after a call a connection need not be looked at before a request that may be
// made twice: to look is a system call.
const recent = time.Millisecond

// conn returns an idle connection, unless fresh, or a new one.
func (t *Transport) conn(ctx context.Context, k key, fresh, replay bool) (*conn, error) {
	for {
		h, c := t.pool.get(k, fresh)
		if c == nil {
			c, err := t.dial(ctx, h)
			if err != nil {
				t.pool.forget(h)
			}
			return c, err
		}
		if replay && t.pool.now()-c.idleAt < recent || c.alive() {
			return c, nil
		}
		c.close()
	}
}

// dial connects to h, which counts the connection already.
func (t *Transport) dial(ctx context.Context, h *host) (*conn, error) {
	raw, err := t.opts.Dial(ctx, "tcp", h.key.address())
	if err != nil {
		return nil, err
	}
	c := newConn(&t.pool, h, raw)
	if !h.key.https {
		return c, nil
	}
	config := t.opts.TLS.Clone()
	config.ServerName = cmp.Or(config.ServerName, h.key.name)
	config.NextProtos = []string{"http/1.1"}
	secure := tls.Client(&c.socket, config)
	ctx, cancel := context.WithTimeout(ctx, t.opts.HandshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, err
	}
	state := secure.ConnectionState()
	c.rw, c.tls = secure, &state
	return c, nil
}
