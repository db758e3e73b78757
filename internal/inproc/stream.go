package inproc

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/deadline"
)

// errFinished is the reason for the end of a queue whose handler has returned without an error.
var errFinished = errors.New("handler has returned")

// A stream joins a client's end and a handler's end.
type stream struct {
	channel *Channel
	method  *method
	side    *serverSide
	up      *queue         // to the handler; ends with io.EOF at the half-close
	down    *queue         // to the client; ends with errFinished or the error of the status
	limit   deadline.Limit // of the handler's context
	over    chan struct{}  // closed when the handler has returned
}

func (c *Channel) newStream(
	ctx context.Context, desc *grpc.StreamDesc, full string, o *callOptions,
) (grpc.ClientStream, error) {
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	md, err := o.outgoing(ctx, full)
	if err != nil {
		return nil, err
	}
	side := &serverSide{method: full, ready: make(chan struct{})}
	s := &stream{channel: c, side: side, up: newQueue(), down: newQueue(), over: make(chan struct{})}
	sctx := start(ctx, &s.limit)
	cs := &clientStream{stream: s, ctx: ctx, desc: desc, options: o}
	cs.unfollow = context.AfterFunc(ctx, func() { cs.abandon(status.FromContextError(ctx.Err()).Err()) })
	// As over the network, that there is no such method is known only with the status.
	if s.method, err = c.find(full); err != nil {
		s.finish(err)
		return cs, nil
	}
	ss := &serverStream{stream: s, ctx: s.side.context(sctx, md)}
	ss.unfollow = context.AfterFunc(sctx, s.contextEnded)
	go s.serve(ss)
	return cs, nil
}

// serve runs the handler.
func (s *stream) serve(ss *serverStream) {
	var err error
	defer func() { s.finish(err) }()
	defer ss.unfollow()
	defer contain(s.method.full, &err)()
	err = statusError(s.handle(ss))
}

func (s *stream) handle(ss *serverStream) error {
	m := s.method
	if m.unary != nil {
		reply, err := m.unary.Handler(m.impl, ss.ctx, ss.RecvMsg, s.channel.unary)
		if err != nil {
			return err
		}
		return ss.SendMsg(reply)
	}
	if s.channel.stream == nil {
		return m.stream.Handler(m.impl, ss)
	}
	info := &grpc.StreamServerInfo{
		FullMethod: m.full, IsClientStream: m.stream.ClientStreams, IsServerStream: m.stream.ServerStreams,
	}
	return s.channel.stream(m.impl, ss, info, m.stream.Handler)
}

// contextEnded wakes a handler that waits to receive; the client's end wakes one that waits to
// send.
func (s *stream) contextEnded() {
	s.up.cut(status.FromContextError(s.limit.Err()).Err())
}

// finish tells the client the status.
func (s *stream) finish(err error) {
	s.side.send(err == nil)
	if err == nil {
		err = errFinished
	}
	s.up.cut(io.EOF)
	s.down.end(err)
	close(s.over)
	s.limit.Cancel(nil)
}

// serverStream is the handler's end.
type serverStream struct {
	*stream
	ctx      context.Context
	unfollow func() bool
}

func (ss *serverStream) Context() context.Context        { return ss.ctx }
func (ss *serverStream) SetHeader(md metadata.MD) error  { return ss.side.SetHeader(md) }
func (ss *serverStream) SendHeader(md metadata.MD) error { return ss.side.SendHeader(md) }
func (ss *serverStream) SetTrailer(md metadata.MD)       { _ = ss.side.SetTrailer(md) }

func (ss *serverStream) SendMsg(m any) error {
	data, err := ss.channel.marshal(m, math.MaxInt)
	if err != nil {
		return err
	}
	ss.side.send(true)
	return ss.down.put(data)
}

func (ss *serverStream) RecvMsg(m any) error {
	data, err := ss.up.get()
	if err != nil {
		return err
	}
	defer data.Free()
	return ss.channel.unmarshal(data, m, defaultMaxReceive)
}

// clientStream is the caller's end. One goroutine may send while another receives.
type clientStream struct {
	*stream
	ctx       context.Context
	desc      *grpc.StreamDesc
	options   *callOptions
	unfollow  func() bool
	closed    atomic.Bool // nothing more is to be sent
	concluded sync.Once
}

// abandon ends the stream from the client's side: the handler's context ends, the client gets err.
func (cs *clientStream) abandon(err error) {
	cs.down.cut(err)
	endLike(cs.ctx, &cs.limit)
	cs.contextEnded()
}

func (cs *clientStream) Context() context.Context { return cs.ctx }

// Header waits for the header, nil if the stream ended without one; RecvMsg tells why.
func (cs *clientStream) Header() (metadata.MD, error) {
	select {
	case <-cs.side.ready:
	case <-cs.over:
	case <-cs.ctx.Done():
	}
	return cs.side.sentHeader(), nil
}

func (cs *clientStream) Trailer() metadata.MD { return cs.side.sentTrailer() }

func (cs *clientStream) CloseSend() error {
	cs.closed.Store(true)
	cs.up.end(io.EOF)
	return nil
}

// SendMsg returns io.EOF when the stream has ended; RecvMsg tells why.
func (cs *clientStream) SendMsg(m any) error {
	if cs.closed.Load() {
		return cs.fail(status.Errorf(codes.Internal, "inproc: SendMsg on %s after CloseSend", cs.side.method))
	}
	data, err := cs.channel.marshal(m, cs.options.maxSend)
	if err != nil {
		return cs.fail(err)
	}
	err = cs.up.put(data)
	if !cs.desc.ClientStreams { // the only request; when it does not arrive, RecvMsg tells
		return cs.CloseSend()
	}
	if err != nil {
		err = io.EOF
	}
	return err
}

// fail ends the stream because the client made a mistake.
func (cs *clientStream) fail(err error) error {
	cs.abandon(err)
	cs.conclude(err)
	return err
}

// RecvMsg returns io.EOF at the good end of a stream of replies, otherwise the error of the status.
func (cs *clientStream) RecvMsg(m any) error {
	err := cs.receive(m)
	if err != nil || !cs.desc.ServerStreams {
		cs.conclude(err)
	}
	return err
}

func (cs *clientStream) receive(m any) error {
	data, err := cs.down.get()
	if errors.Is(err, errFinished) {
		if cs.desc.ServerStreams {
			return io.EOF
		}
		err = status.Errorf(codes.Internal, "inproc: %s ended without a reply", cs.side.method)
	}
	if err != nil {
		return err
	}
	defer data.Free()
	if err := cs.channel.unmarshal(data, m, cs.options.maxRecv); err != nil {
		cs.abandon(err)
		return err
	}
	if cs.desc.ServerStreams {
		return nil
	}
	return cs.onlyOne()
}

// onlyOne waits for the status after the only reply.
func (cs *clientStream) onlyOne() error {
	data, err := cs.down.get()
	if errors.Is(err, errFinished) {
		return nil
	}
	if err == nil {
		data.Free()
		err = status.Errorf(codes.Internal, "inproc: %s sent a second reply: expected one", cs.side.method)
		cs.abandon(err)
	}
	return err
}

// conclude delivers what the options asked for once the client knows of the end.
func (cs *clientStream) conclude(err error) {
	cs.concluded.Do(func() {
		cs.unfollow()
		cs.options.deliver(cs.side)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		cs.options.finish(err)
	})
}
