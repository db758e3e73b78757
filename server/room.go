package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"
)

// When no more connections can be accepted, those that are not in use are closed: idle ones at
// once, others when their request has taken longer than this to arrive.
const (
	silentTime = time.Second            // for the head of the first request
	halfTime   = 5 * time.Second        // for the rest of a body
	greedyTime = 200 * time.Millisecond // for either, when the client holds more than a quarter of all
	roomPause  = 100 * time.Millisecond // between two looks
)

// makeRoom closes some of the connections that may be closed, the oldest first. While one client
// holds more than a quarter of all, only that client's connections are closed, and sooner. So no
// client can fill the server alone, and the others keep their connections.
func (c *conns) makeRoom(now time.Time) {
	c.mu.Lock()
	held := make(map[netip.Prefix]int)
	for nc := range c.all {
		if nc.since.Load() != 0 {
			held[nc.client]++
		}
	}
	var spare, greedy []*conn
	one := false // one client holds too many
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
		_ = nc.Close() // a handler that waits for the body gets an error
	}
}

// spare allows the connection to be closed once it has waited for allowed since the time since. A
// zero since means that it is in use.
func (c *conn) spare(since time.Time, allowed time.Duration) {
	c.allowed.Store(int64(allowed))
	if since.IsZero() {
		c.since.Store(0)
	} else {
		c.since.Store(since.UnixNano())
	}
}

// What Read assumes about net/http: it first reads h2cPreface bytes, to recognise HTTP/2. After
// that it reads into a buffer of readBuffer bytes, which is empty when a request begins, except
// perhaps for one byte that was read to notice that the client leaves. Otherwise heads are not
// kept.
const (
	h2cPreface = len("PRI * HTTP/2.0")
	readBuffer = 4096
)

// Read keeps the head of a request, if it arrives in one piece at the start of a read.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(p) == 1 {
		c.early = true
		return n, err
	}
	if c.fault.Store(0); errors.Is(err, os.ErrDeadlineExceeded) { // also when net/http ends a read between two requests
		c.fault.Store(http.StatusRequestTimeout)
	} else if err != nil {
		c.fault.Store(http.StatusBadRequest)
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

// rested allows a connection to be closed when its request has been answered. net/http does not
// report reliably that the next request has begun, so arrive does that.
func rested(nc net.Conn, state http.ConnState) {
	if c := innermost(nc); c != nil && state == http.StateIdle {
		c.rested.Store(true)
		c.spare(time.Now(), 0)
	}
}

// arrive marks the connection of r as in use, and returns what is wrong with the framing of the
// request, or "". It is against request smuggling: a proxy in front of this server may read such a
// request differently from net/http, and take its end for another request. If there are both
// Content-Length and Transfer-Encoding, net/http uses the second and hides the first; for HTTP/1.0
// it hides the second too. It also accepts folded lines, and lines that end without CR. If the head
// was not seen whole, the connection is closed after the answer, so that nothing after the body is
// read as a request.
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
	if !c.rested.Load() { // otherwise the request was read together with the one before
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

// wholeLines reports whether each line of a head ends with CRLF and none is folded. The first bytes
// of a connection's first head are missing, perhaps including a CR.
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
