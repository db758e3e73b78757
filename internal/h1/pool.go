package h1

import (
	"cmp"
	"net"
	"net/url"
	"sync"
	"time"
)

// key is what connections are shared by.
type key struct {
	host  string // as the URL has it
	https bool
	name  string // of the certificate, for https
}

// address is where to dial.
func (k key) address() string {
	port := "80"
	if k.https {
		port = "443"
	}
	u := url.URL{Host: k.host}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
}

// pool keeps the idle connections. The one that was used last is the first to be used again.
type pool struct {
	limit   int
	timeout time.Duration
	began   time.Time // origin of now

	mu    sync.Mutex
	hosts map[key]*host
	timer *time.Timer // of reap; nil before the first connection that was idle
	armed bool
}

type host struct {
	key   key
	conns int     // open or being opened
	gone  bool    // by closeIdle: its connections are not kept
	idle  []*conn // the oldest first
}

func (p *pool) now() time.Duration { return time.Since(p.began) }

// get takes an idle connection to k, unless fresh. If it returns none, the host counts the one
// that the caller is about to open; forget takes that back.
func (p *pool) get(k key, fresh bool) (*host, *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[k]
	if h == nil {
		h = &host{key: k}
		p.hosts[k] = h
	}
	if n := len(h.idle) - 1; n >= 0 && !fresh {
		c := h.idle[n]
		h.idle[n] = nil
		h.idle = h.idle[:n]
		return h, c
	}
	h.conns++
	return h, nil
}

// put makes c idle, and reports false if it must be closed instead.
func (p *pool) put(c *conn) bool {
	c.idleAt = p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.host.gone || len(c.host.idle) >= p.limit {
		return false
	}
	c.host.idle = append(c.host.idle, c)
	switch {
	case p.armed:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.timeout, p.reap)
	default:
		p.timer.Reset(p.timeout)
	}
	p.armed = true
	return true
}

// forget is told of each connection that was closed, or was not opened after all.
func (p *pool) forget(h *host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.conns--; h.conns == 0 && !h.gone {
		delete(p.hosts, h.key)
	}
}

// reap closes what has been idle for too long.
func (p *pool) reap() {
	var old []*conn
	p.mu.Lock()
	now, next := p.now(), time.Duration(-1)
	for _, h := range p.hosts {
		n := 0
		for n < len(h.idle) && now-h.idle[n].idleAt >= p.timeout {
			n++
		}
		old = append(old, h.idle[:n]...)
		h.idle = append(h.idle[:0:0], h.idle[n:]...)
		if len(h.idle) > 0 && (next < 0 || h.idle[0].idleAt < next) {
			next = h.idle[0].idleAt
		}
	}
	if p.armed = next >= 0; p.armed {
		p.timer.Reset(next + p.timeout - now)
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

func (p *pool) closeIdle() {
	var all []*conn
	p.mu.Lock()
	for _, h := range p.hosts {
		all = append(all, h.idle...)
		h.idle, h.gone = nil, true
	}
	clear(p.hosts)
	if p.armed {
		p.armed = !p.timer.Stop() // a reap that has begun says so itself
	}
	p.mu.Unlock()
	for _, c := range all {
		c.close()
	}
}
