package server

import (
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

// writePart is how much is written between two signs of life of a connection.
const writePart = 512 << 10

// conns is a listener that knows the connections it has accepted: it bounds their number and
// closes those whose peer takes nothing of what is written, or that nobody needs when it is full.
type conns struct {
	net.Listener
	limit int             // connections at a time; not positive: any number
	stop  <-chan struct{} // closed when no more are accepted
	freed chan struct{}   // one has ended

	mu    sync.Mutex
	all   map[*conn]struct{}
	taken int // connections, and the one to be accepted
}

func newConns(l net.Listener, limit int, stop <-chan struct{}) *conns {
	if limit == 0 {
		limit = descriptors() / 2
	}
	return &conns{Listener: l, limit: limit, stop: stop, freed: make(chan struct{}, 1), all: map[*conn]struct{}{}}
}

// opened counts the connections that all servers of the process have accepted: its descriptors are
// shared.
var opened atomic.Int64

// take takes the room for one more connection, if there is any: up to limit here, and up to three
// quarters of the process's descriptors everywhere. The rest is for its own calls and files.
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

// watch closes connections that are in one write for longer than the limit, until stop is closed.
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

// conn knows since when it has been writing, and whether it is needed.
type conn struct {
	net.Conn
	conns   *conns
	client  netip.Prefix
	since   atomic.Int64 // when the wait for its peer began, in Unix nanoseconds; 0: it is worked on
	allowed atomic.Int64 // how long that wait may be, when there is no room
	rested  atomic.Bool  // a request was answered, and nothing read since
	// For the goroutine that reads:
	reads int    // since the last request
	used  bool   // there was one
	early bool   // one byte of the next request was read
	head  []byte // of the request, until the next read

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

// ReadFrom keeps sendfile for files, part by part. Other sources may keep a read waiting, which
// must not look like a write that is stuck.
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

// CloseWrite is how net/http lets a client read the answer before the connection goes.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close makes room for another connection once the descriptor is free, which is when nobody reads
// from it any more.
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
