package server

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// When there is no room for more connections, those are closed that nobody works for: idle ones at
// once, others when they have kept a request to themselves for too long.
const (
	silentTime = time.Second            // for the head of the first request
	halfTime   = 5 * time.Second        // for the rest of a body
	greedyTime = 200 * time.Millisecond // for either, when the client holds a quarter of all
	roomPause  = 100 * time.Millisecond
)

// makeRoom closes some of the connections that may be closed, the oldest first. While a client holds
// more than a quarter of all, only its own are closed, and it has little time to finish what it has
// begun to send: nobody fills the server alone, and others keep their connections.
func (c *conns) makeRoom(now time.Time) {
	c.mu.Lock()
	held := make(map[netip.Prefix]int)
	for nc := range c.all {
		if nc.since.Load() != 0 {
			held[nc.client]++
		}
	}
	var spare, greedy []*conn
	one := false // client holds too much
	for nc := range c.all {
		switch since, allowed := nc.since.Load(), nc.allowed.Load(); {
		case since == 0:
		case held[nc.client] > c.limit/4:
			one = true
			if since+min(allowed, int64(greedyTime)) <= now.UnixNano() {
				greedy = append(greedy, nc)
			}
		case since+allowed <= now.UnixNano():
			spare = append(spare, nc)
		}
	}
	c.mu.Unlock()
	if one {
		spare = greedy
	}
	slices.SortFunc(spare, func(a, b *conn) int { return cmp.Compare(a.since.Load(), b.since.Load()) })
	for _, nc := range spare[:min(len(spare), 1+c.limit/64)] {
		_ = nc.Close() // a handler that waits for it is told by an error
	}
}

// spare lets the connection be closed after the time allowed; the zero time for since says that it is
// worked on.
func (c *conn) spare(since time.Time, allowed time.Duration) {
	c.allowed.Store(int64(allowed))
	if since.IsZero() {
		c.since.Store(0)
	} else {
		c.since.Store(since.UnixNano())
	}
}

// What is known of how net/http reads: first so many bytes, to see whether they are those of HTTP/2;
// later into a buffer of that size, all of which is free when nothing of a request was read before,
// but for one byte perhaps that was read to see the client leave. Were it otherwise, heads would not
// be kept.
const (
	h2cPreface = len("PRI * HTTP/2.0")
	readBuffer = 4096
)

// Read keeps the head of a request, if it comes at once and at the start of what is read.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(p) == 1 {
		c.early = true
		return n, err
	}
	if c.rested.Swap(false) {
		c.reads, c.used, c.head = 0, true, nil
	}
	c.reads++
	switch {
	case c.reads == 1 && (!c.used || len(p) == readBuffer || c.early && len(p) == readBuffer-1),
		c.reads == 2 && !c.used && len(c.head) == h2cPreface: // no request line is shorter
		c.head, c.early = p[:n], false
	default:
		c.head = nil
	}
	return n, err
}

type connKey struct{}

func innermost(nc net.Conn) *conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = t.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, innermost(nc))
}

// connOf is the connection of r; nil for a call within the process.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// rested lets a connection be closed whose request has been answered. That the next one is there
// net/http does not tell reliably: enter does.
func rested(nc net.Conn, state http.ConnState) {
	if c := innermost(nc); c != nil && state == http.StateIdle {
		c.rested.Store(true)
		c.spare(time.Now(), 0)
	}
}

// arrive notes that the connection of r, if it is one of ours, is worked on, and says what is wrong
// with how the request is framed, "" for nothing. What stands in front of this server may read it
// otherwise than net/http, and take what follows for another request: with both Content-Length and
// Transfer-Encoding net/http goes by the second and hides the first, of HTTP/1.0 it hides the second
// too; it takes lines that are folded, or end without CR. Where the head is not to be seen at once,
// what follows a body is not read.
func (x *exchange) arrive(r *http.Request) (wrong string) {
	c := connOf(r)
	if c == nil {
		return ""
	}
	c.spare(time.Time{}, 0)
	if r.ProtoMajor != 1 {
		return ""
	}
	if r.ContentLength != 0 {
		x.body.conn = c
		c.spare(x.start, halfTime) // until its body has come
	}
	var head []byte
	whole := false
	if !c.rested.Load() { // else nothing was read for this request: it came with the one before
		head, _, whole = bytes.Cut(c.head, []byte("\r\n\r\n"))
	}
	end := true
	switch {
	case !wholeLines(head):
		wrong = "a line of the header is folded, or does not end with CR and LF"
	case len(r.TransferEncoding) > 0 && hasField(head, "content-length"):
		wrong = "the request has both Content-Length and Transfer-Encoding"
	case r.ProtoMinor == 0 && hasField(head, "transfer-encoding"):
		wrong = "HTTP/1.0 has no Transfer-Encoding"
	default: // longer than one read, begun behind another request, or encrypted
		end = !whole && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
	}
	if end {
		x.Header().Set("Connection", "close")
	}
	return wrong
}

// wholeLines reports whether each line of a head ends with CRLF and none continues the one before. The
// first bytes of a connection's first head are missing, a CR perhaps among them.
func wholeLines(head []byte) bool {
	for first := true; ; first = false {
		i := bytes.IndexByte(head, '\n')
		if i < 0 {
			return true
		}
		if i == 0 && !first || i > 0 && head[i-1] != '\r' || i+1 < len(head) && (head[i+1] == ' ' || head[i+1] == '\t') {
			return false
		}
		head = head[i+1:]
	}
}

// hasField reports whether a head has a field of that name, which is in lower case.
func hasField(head []byte, name string) bool {
	head = bytes.ToLower(head)
	return bytes.HasPrefix(head, []byte(name)) || bytes.Contains(head, []byte("\n"+name))
}
