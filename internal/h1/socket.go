package h1

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// firstLook is how long a call lasts before its context is watched. Most calls are over by then,
// and to watch a context costs more than the rest of such a call does.
const firstLook = 10 * time.Millisecond

// socket is a connection whose reads and writes end with the context of the call under way. Its
// deadlines are only times to wake up at and look at the context again.
type socket struct {
	net.Conn
	peek  func(p []byte) (int, error) // reads without waiting; nil if the system has no way
	ctx   context.Context             // of the call
	wake  time.Time                   // when the deadline is; zero for never, or not known
	sent  int64                       // bytes that the system took
	quick bool                        // Read must not wait

	mu     sync.Mutex
	closed bool
	unwind func() bool // ends the watching of ctx; nil if it is not watched
}

// begin makes ctx the context of what follows.
func (s *socket) begin(ctx context.Context) {
	now := time.Now()
	wake := now.Add(firstLook)
	if at, ok := ctx.Deadline(); ok && at.Before(wake) {
		wake = at
	}
	s.ctx = ctx
	// To wake up too early is no harm, so the deadline is not set for each of many short calls.
	if s.wake.After(wake) || s.wake.Before(now.Add(firstLook/4)) {
		s.wake = wake
		_ = s.Conn.SetDeadline(wake) // whoever reads or writes next sees what is wrong
	}
}

// end ends what begin began. It reports false if the connection is of no use any more.
func (s *socket) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	unwind := s.unwind
	s.ctx, s.unwind = nil, nil
	return !s.closed && (unwind == nil || unwind())
}

func (s *socket) Read(p []byte) (int, error) {
	if s.quick {
		return s.readNow(p)
	}
	for {
		n, err := s.Conn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := s.look(); err != nil {
			return 0, err
		}
	}
}

func (s *socket) Write(p []byte) (n int, err error) {
	for {
		k, err := s.Conn.Write(p[n:])
		n += k
		s.sent += int64(k)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := s.look(); err != nil {
			return n, err
		}
	}
}

// look returns why the context has ended. If it has not, it is watched from now on.
func (s *socket) look() error {
	ctx := s.ctx
	if ctx == nil {
		return os.ErrDeadlineExceeded
	}
	at, ok := ctx.Deadline()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ok && !time.Now().Before(at) {
		return context.DeadlineExceeded // its timer is late
	}
	s.wake = at
	_ = s.Conn.SetDeadline(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.unwind == nil && ctx.Done() != nil:
		s.unwind = context.AfterFunc(ctx, s.interrupt)
	}
	if ctx.Err() != nil { // interrupt may have come before SetDeadline
		return context.Cause(ctx)
	}
	return nil
}

func (s *socket) interrupt() { _ = s.Conn.SetDeadline(time.Unix(1, 0)) }

// Close may be called at any time, from any goroutine.
func (s *socket) Close() error {
	s.mu.Lock()
	s.closed = true
	unwind := s.unwind
	s.unwind = nil
	s.mu.Unlock()
	if unwind != nil {
		unwind()
	}
	return s.Conn.Close()
}

// readNow reads what is there. If there is nothing, it returns os.ErrDeadlineExceeded, which
// crypto/tls takes for a passing error.
func (s *socket) readNow(p []byte) (int, error) {
	if s.peek != nil {
		return s.peek(p)
	}
	s.wake = time.Time{}
	if err := s.Conn.SetDeadline(time.Unix(1, 0)); err != nil {
		return 0, err
	}
	return s.Conn.Read(p)
}
