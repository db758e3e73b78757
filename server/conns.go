package server

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// writePart is how much is written between two signs of life of a connection.
const writePart = 512 << 10

// conns is a listener that knows the connections it has accepted: it bounds their number and
// closes those whose peer takes nothing of what is written.
type conns struct {
	net.Listener
	free   chan struct{} // a token for each connection in use; nil without a limit
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	all map[*conn]struct{}
}

func newConns(l net.Listener, limit int) *conns {
	c := &conns{Listener: l, closed: make(chan struct{}), all: map[*conn]struct{}{}}
	if limit > 0 {
		c.free = make(chan struct{}, limit)
	}
	return c
}

// Accept waits until there may be one more connection.
func (c *conns) Accept() (net.Conn, error) {
	if c.free != nil {
		select {
		case c.free <- struct{}{}:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
	nc, err := c.Listener.Accept()
	if err != nil {
		c.release()
		return nil, err
	}
	wrapped := &conn{Conn: nc, conns: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[wrapped] = struct{}{}
	return wrapped, nil
}

func (c *conns) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

func (c *conns) release() {
	if c.free != nil {
		<-c.free
	}
}

// watch closes connections that are stuck in one write for longer than the limit, until stop is
// closed.
func (c *conns) watch(limit time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(max(limit/2, time.Millisecond))
	defer tick.Stop()
	seen := map[*conn]uint64{}
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := map[*conn]uint64{}
		c.mu.Lock()
		for nc := range c.all {
			n := nc.writes.Load()
			if n%2 == 0 {
				continue
			}
			now[nc] = n
			if seen[nc] == n && nc.strikes.Add(1) >= 2 {
				_ = nc.SetWriteDeadline(time.Unix(1, 0)) // the writer closes it
			}
		}
		c.mu.Unlock()
		seen = now
	}
}

// conn counts its writes: an odd number means that one is under way.
type conn struct {
	net.Conn
	conns   *conns
	writes  atomic.Uint64
	strikes atomic.Int32 // how often it was seen in the same write
	once    sync.Once
}

func (c *conn) Write(p []byte) (n int, err error) {
	for {
		part := p[n:min(len(p), n+writePart)]
		k, err := c.write(part)
		n += k
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

func (c *conn) write(p []byte) (int, error) {
	c.strikes.Store(0)
	c.writes.Add(1)
	defer c.writes.Add(1)
	return c.Conn.Write(p)
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
		k, err := c.readFrom(rf, part)
		limited.N -= want - part.N
		n += k
		if err != nil || part.N > 0 || limited.N <= 0 {
			return n, err
		}
	}
}

func (c *conn) readFrom(rf io.ReaderFrom, src io.Reader) (int64, error) {
	c.strikes.Store(0)
	c.writes.Add(1)
	defer c.writes.Add(1)
	return rf.ReadFrom(src)
}

// CloseWrite is how net/http lets a client read the answer before the connection goes.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.conns.mu.Lock()
		delete(c.conns.all, c)
		c.conns.mu.Unlock()
		c.conns.release()
	})
	return c.Conn.Close()
}
