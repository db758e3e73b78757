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

// stream is a call whose outcome is known at its end: when RecvMsg fails, when the one answer of a
// call that has only one has come, or when the caller's context ends.
type stream struct {
	grpc.ClientStream
	rpcCall
	single bool // the server sends one message
	cancel context.CancelFunc
	stop   func() bool // ends the watch of the caller's context

	once  sync.Once
	heard atomic.Bool // a message has come
}

func (c *conn) stream(
	ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	made, err := c.newCall(ctx, method)
	if err != nil {
		return nil, err
	}
	s := &stream{single: !desc.ServerStreams, rpcCall: made}
	s.startRPCSpan()
	s.open(true)
	for {
		err = s.try(desc, opts)
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
	s.finish(err)
	return nil, err
}

// try opens the stream on one instance.
func (s *stream) try(desc *grpc.StreamDesc, opts []grpc.CallOption) error {
	if err := s.begin(); err != nil {
		return err
	}
	to, err := s.connection()
	if err == nil {
		var ctx context.Context
		ctx, s.cancel = context.WithCancel(s.ctx)
		if s.ClientStream, err = to.NewStream(ctx, desc, s.method, opts...); err == nil {
			return nil
		}
		s.cancel()
		err = s.explain(err, false)
	}
	// grpc-go opens a stream when it has a connection: an error here means that there was none.
	s.record(s.classify(err, false), 0)
	s.in.release()
	return err
}

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
	case !s.heard.Swap(true) && s.permit.probe: // its end may be far: the breaker need not wait for it
		s.record(success, 0)
	}
	return err
}

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
	s.ended(s.explain(status.FromContextError(s.ctx.Err()).Err(), true))
}

func (s *stream) end(err error) {
	s.stop()
	s.ended(err)
}

func (s *stream) ended(err error) {
	s.once.Do(func() {
		out := s.classify(err, true)
		if code := status.Code(err); out == failure && s.heard.Load() && (code == codes.DeadlineExceeded || code == codes.Unavailable) {
			out = neutral // a stream that was never meant to end, or whose server stops
		}
		s.record(out, 0)
		s.in.release()
		s.finish(err)
		s.cancel()
	})
}
