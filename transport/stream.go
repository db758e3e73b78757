package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is a call whose outcome is known at its end: when RecvMsg fails, when the one answer of a call that
// has only one has come, or when the caller's context ends.
type stream struct {
	grpc.ClientStream
	call
	single bool // the server sends one message
	cancel context.CancelFunc
	stop   func() bool // ends the watch of the caller's context

	once  sync.Once
	heard atomic.Bool // a message has come
}

// NewStream implements grpc.ClientConnInterface. A stream is balanced and checked by the breaker, and opened
// again on another instance while it has reached none. It has no deadline but the caller's. As with grpc-go the caller must receive
// until an error, or end its context.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	tg, err := c.t.target(c.name, false)
	if err != nil {
		return nil, &callError{text: err.Error(), cause: err, code: codes.Unavailable}
	}
	s := &stream{single: !desc.ServerStreams, call: call{t: c.t, tg: tg, proto: overGRPC, ctx: ctx}}
	s.startRPCSpan(method)
	s.open(true)
	outgoing := inject(s.ctx)
	for {
		err = s.try(outgoing, desc, method, opts)
		if err == nil {
			// Not before the stream stands: the function may run at once.
			s.stop = context.AfterFunc(s.ctx, s.abandoned)
			return s, nil
		}
		if errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) || status.Code(err) != codes.Unavailable {
			break
		}
		pause, ok := s.repeat(-1)
		if !ok {
			break
		}
		if err = s.wait(pause); err != nil {
			break
		}
	}
	s.endRPCSpan(s.done(err), err)
	return nil, err
}

// try opens the stream on one instance.
func (s *stream) try(ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) error {
	if err := s.begin(); err != nil {
		return err
	}
	to, err := s.connection()
	if err == nil {
		ctx, s.cancel = context.WithCancel(ctx)
		if s.ClientStream, err = to.NewStream(ctx, desc, method, opts...); err == nil {
			return nil
		}
		s.cancel()
		err = s.explain(err, false)
	}
	// grpc-go opens a stream when it has a connection: an error here means that there was none.
	s.settle(s.judge(err, false), 0)
	s.in.release()
	return err
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err == io.EOF:
		s.end(nil)
	case err != nil:
		err = s.explain(err, true)
		s.end(err)
	case s.single:
		s.end(nil)
	case !s.heard.Swap(true):
		if s.permit.probe { // its end may be far: the breaker need not wait for it
			s.settle(success, 0)
		}
	}
	return err
}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && err != io.EOF { // after io.EOF the reason comes from RecvMsg
		err = s.explain(err, true)
		s.end(err)
	}
	return err
}

// abandoned ends the stream of a caller whose context has ended, and who may never receive again.
func (s *stream) abandoned() {
	s.finish(s.explain(status.FromContextError(s.ctx.Err()).Err(), true))
}

func (s *stream) end(err error) {
	s.stop()
	s.finish(err)
}

func (s *stream) finish(err error) {
	s.once.Do(func() {
		out := s.judge(err, true)
		if out == failure && status.Code(err) == codes.DeadlineExceeded && s.heard.Load() {
			out = neutral // a stream that was never meant to end
		}
		s.settle(out, 0)
		s.in.release()
		s.endRPCSpan(s.done(err), err)
		s.cancel()
	})
}
