package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
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
	s := &stream{single: !desc.ServerStreams}
	err := c.prepare(ctx, method, &s.rpcCall)
	if err != nil {
		return nil, err
	}
	s.startRPCSpan()
	s.open(true)
	for {
		err = s.try(desc, opts)
		if err == nil {
			// A caller whose context has ended may never receive again. Not before the stream stands:
			// the function may run at once. RecvMsg has the error.
			s.stop = context.AfterFunc(s.ctx, func() { _ = s.ended(status.FromContextError(s.ctx.Err()).Err(), true, nil) })
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

func (s *stream) try(desc *grpc.StreamDesc, opts []grpc.CallOption) error {
	if err := s.begin(); err != nil {
		return err
	}
	to, err := s.connection()
	if err != nil {
		s.record(failure, 0)
		s.in.release()
		return err
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.traced())
	if s.ClientStream, err = to.NewStream(ctx, desc, s.method, opts...); err == nil {
		return nil
	}
	s.cancel()
	// grpc-go opens a stream when it has a connection: an error here means that there was none.
	out := s.classify(err, false)
	s.record(out, 0)
	s.in.release()
	return s.explain(err, false, out)
}

func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err == io.EOF, err == nil && s.single:
		_ = s.conclude(nil, true, nil)
	case err != nil:
		err = s.conclude(err, true, s.Trailer())
	case !s.heard.Swap(true) && s.permit.probe: // its end may be far: the breaker need not wait for it
		s.record(success, 0)
	}
	return err
}

func (s *stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && err != io.EOF { // after io.EOF the reason comes from RecvMsg; all else is made on this side
		err = s.conclude(err, false, nil)
	}
	return err
}

// conclude ends the stream with err, nil for a good end, and returns that explained.
func (s *stream) conclude(err error, reached bool, trailer metadata.MD) error {
	s.stop()
	return s.ended(err, reached, trailer)
}

func (s *stream) ended(err error, reached bool, trailer metadata.MD) error {
	out := neutral
	s.once.Do(func() {
		s.note(trailer)
		out = s.classify(err, reached)
		if code := status.Code(err); out == failure && s.heard.Load() && (code == codes.DeadlineExceeded || code == codes.Unavailable) {
			out = neutral // a stream that was never meant to end, or whose server stops
		}
		s.record(out, 0)
		s.in.release()
		s.finish(s.explain(err, reached, out))
		s.cancel()
	})
	return s.explain(err, reached, out)
}
