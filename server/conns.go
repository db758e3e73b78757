package server

import (
	"cmp"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// writePart is the most that one write may pass on before the connection counts as alive again.
const writePart = 512 << 10

// conns is a listener that keeps track of its connections. It bounds their number, closes those
// whose peer does not read, and closes unused ones when it is full.
type conns struct {
	net.Listener
	limit int             // connections at a time; not positive: any number
	stop  <-chan struct{} // closed when no more are accepted
	freed chan struct{}   // one has ended

	mu    sync.Mutex
	all   map[*conn]struct{}
	taken int // connections, including one that is about to be accepted
}

func newConns(l net.Listener, limit int, stop <-chan struct{}) *conns {
	return &conns{Listener: l, limit: cmp.Or(limit, descriptors()/2), stop: stop, freed: make(chan struct{}, 1), all: map[*conn]struct{}{}}
}

// opened counts the connections of all servers in the process, which share its file descriptors.
var opened atomic.Int64

// take reserves a connection, if there may be one more: up to limit for this listener, and three
// quarters of the process's file descriptors for all. The rest is for its own calls.
func (c *conns) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit > 0 && (c.taken >= c.limit || opened.Load() >= int64(descriptors()/4*3)) {
		return false
	}
	c.taken++
	opened.Add(1)
	return true
}

// Accept waits until there may be one more connection.
func (c *conns) Accept() (net.Conn, error) {
	for !c.take() {
		c.makeRoom(time.Now())
		select {
		case <-c.freed:
		case <-time.After(roomPause): // some may be closed by then, or others may have ended elsewhere
		case <-c.stop:
			return nil, net.ErrClosed
		}
	}
	nc, err := c.Listener.Accept()
	if err != nil {
		c.release()
		return nil, err
	}
	wrapped := &conn{Conn: nc, conns: c}
	if at, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		wrapped.client = clientOf(at.Addr())
	}
	wrapped.spare(time.Now(), silentTime)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[wrapped] = struct{}{}
	return wrapped, nil
}

func (c *conns) release() {
	c.mu.Lock()
	c.taken--
	c.mu.Unlock()
	opened.Add(-1)
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// watch ends connections that have been in one write for longer than limit, until stop is closed.
func (c *conns) watch(limit time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(max(limit/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		latest := time.Now().Add(-limit).UnixNano()
		c.mu.Lock()
		for nc := range c.all {
			if began := nc.writing.Load(); began != 0 && began < latest {
				_ = nc.SetWriteDeadline(time.Unix(1, 0)) // the writer closes it
			}
		}
		c.mu.Unlock()
	}
}

// conn is a connection that records since when it has been writing, and whether it is in use.
type conn struct {
	net.Conn
	conns   *conns
	client  netip.Prefix
	since   atomic.Int64 // when the wait for its peer began, in Unix nanoseconds; 0 while a request is handled
	allowed atomic.Int64 // how long that wait may last when connections are short
	rested  atomic.Bool  // a request was answered, and nothing was read since
	fault   atomic.Int32 // the status for a body, if the last Read has failed; otherwise 0
	// Used by the goroutine that reads:
	reads int    // since the last request
	used  bool   // there was a request
	early bool   // one byte of the next request was read ahead
	head  []byte // the head of the request, valid until the next read

	writing atomic.Int64 // the start of the write under way in Unix nanoseconds; 0: none
	once    sync.Once
}

func (c *conn) Write(p []byte) (n int, err error) {
	for {
		c.writing.Store(time.Now().UnixNano())
		k, err := c.Conn.Write(p[n:min(len(p), n+writePart)])
		c.writing.Store(0)
		n += k
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// ReadFrom uses sendfile for files, in parts. Other sources are copied: their reads may block, and
// that must not look like a stuck write.
func (c *conn) ReadFrom(src io.Reader) (n int64, err error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	rf, ok := c.Conn.(io.ReaderFrom)
	if _, file := limited.R.(*os.File); !file || !ok {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	for {
		want := min(limited.N, writePart)
		part := &io.LimitedReader{R: limited.R, N: want}
		c.writing.Store(time.Now().UnixNano())
		k, err := rf.ReadFrom(part)
		c.writing.Store(0)
		limited.N -= want - part.N
		n += k
		if err != nil || part.N > 0 || limited.N <= 0 {
			return n, err
		}
	}
}

// CloseWrite is called by net/http so that a client can read the answer before the close.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close makes room for another connection, but only after the descriptor is free.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.conns.mu.Lock()
		delete(c.conns.all, c)
		c.conns.mu.Unlock()
		c.conns.release()
	})
	return err
}
