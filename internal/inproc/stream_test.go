package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
)

// drain receives to the end and returns all of it with the reason for the end.
func drain(t *testing.T, cs grpc.ClientStream) string {
	t.Helper()
	var got []string
	for {
		m := new(text)
		err := cs.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return strings.Join(append(got, "EOF"), " ")
		}
		if err != nil {
			return strings.Join(append(got, status.Code(err).String()), " ")
		}
		got = append(got, m.GetValue())
	}
}

func open(ctx context.Context, t *testing.T, cc grpc.ClientConnInterface, d *grpc.StreamDesc, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	cs, err := cc.NewStream(ctx, d, "/test.Echo/"+d.StreamName, opts...)
	if err != nil {
		t.Fatalf("open %s: %v", d.StreamName, err)
	}
	return cs
}

func send(t *testing.T, cs grpc.ClientStream, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if err := cs.SendMsg(wrapperspb.String(s)); err != nil {
			t.Fatalf("send %q: %v", s, err)
		}
	}
}

// echoAll sends back what it receives until the half-close, then says goodbye.
func echoAll(ss grpc.ServerStream) error {
	for {
		m := new(text)
		err := ss.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return ss.SendMsg(wrapperspb.String("bye"))
		}
		if err != nil {
			return err
		}
		if err := ss.SendMsg(m); err != nil {
			return err
		}
	}
}

func TestBidi(t *testing.T) {
	onBothChannels(t, func() *echo { return &echo{stream: echoAll} }, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		cs := open(t.Context(), t, cc, both)
		for _, s := range []string{"a", "b"} { // one answer for each, before the next is sent
			send(t, cs, s)
			m := new(text)
			if err := cs.RecvMsg(m); err != nil || m.GetValue() != s {
				t.Fatalf("answer to %s: %v %v", s, m, err)
			}
		}
		if err := cs.CloseSend(); err != nil {
			t.Error(err)
		}
		if got := drain(t, cs); got != "bye EOF" {
			t.Errorf("after the half-close: %s, want bye EOF", got)
		}
		if got := drain(t, cs); got != "EOF" {
			t.Errorf("after the end: %s, want EOF", got)
		}
	})
}

func TestSendAfterCloseSend(t *testing.T) {
	onBothChannels(t, func() *echo { return &echo{stream: echoAll} }, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		cs := open(t.Context(), t, cc, both)
		_ = cs.CloseSend()
		wantStatus(t, "send after CloseSend", cs.SendMsg(new(text)), codes.Internal, "")
	})
}

func TestClientStream(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(ss grpc.ServerStream) error {
			var got strings.Builder
			for {
				m := new(text)
				if err := ss.RecvMsg(m); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					return err
				}
				got.WriteString(m.GetValue())
			}
			switch all := got.String(); all {
			case "none":
				return nil
			case "two":
				_ = ss.SendMsg(new(text))
			case "reply and error":
				_ = ss.SendMsg(new(text))
				return status.Error(codes.Aborted, "too late")
			}
			return ss.SendMsg(wrapperspb.String(got.String()))
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		for in, want := range map[string]codes.Code{
			"abc": codes.OK, "none": codes.Internal, "two": codes.Internal, "reply and error": codes.Aborted,
		} {
			cs := open(t.Context(), t, cc, up)
			send(t, cs, in[:1], in[1:])
			_ = cs.CloseSend()
			m := new(text)
			err := cs.RecvMsg(m)
			if status.Code(err) != want || want == codes.OK && m.GetValue() != in {
				t.Errorf("%s: got %q %v, want %v", in, m.GetValue(), err, want)
			}
		}
	})
}

func TestServerStream(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(ss grpc.ServerStream) error {
			m := new(text)
			if err := ss.RecvMsg(m); err != nil {
				return err
			}
			if err := ss.RecvMsg(m); !errors.Is(err, io.EOF) { // half-closed without CloseSend
				return fmt.Errorf("second receive: %w", err)
			}
			_ = ss.SetHeader(metadata.Pairs("x-h", "1"))
			for i := range 3 {
				if err := ss.SendMsg(wrapperspb.String(fmt.Sprint(m.GetValue(), i))); err != nil {
					return err
				}
			}
			if ss.SetHeader(metadata.Pairs("x-h", "2")) == nil {
				return errors.New("header set after the first message")
			}
			ss.SetTrailer(metadata.Pairs("x-t", "1"))
			return status.Error(codes.DataLoss, "that was all")
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		var header, trailer metadata.MD
		var finished []codes.Code
		cs := open(t.Context(), t, cc, down, grpc.Header(&header), grpc.Trailer(&trailer),
			grpc.OnFinish(func(err error) { finished = append(finished, status.Code(err)) }))
		send(t, cs, "n")
		if h, err := cs.Header(); fmt.Sprint(h["x-h"]) != "[1]" || err != nil {
			t.Errorf("header %v %v, want x-h 1", h, err)
		}
		if got := drain(t, cs); got != "n0 n1 n2 DataLoss" {
			t.Errorf("got %s, want n0 n1 n2 DataLoss", got)
		}
		if got := fmt.Sprint(header["x-h"], trailer["x-t"], cs.Trailer()["x-t"], finished); got != "[1] [1] [1] [DataLoss]" {
			t.Errorf("header, trailer twice, OnFinish: %s", got)
		}
	})
}

func TestHeaderBeforeTheFirstMessage(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(ss grpc.ServerStream) error {
			if err := ss.SendHeader(metadata.Pairs("x-h", "1")); err != nil {
				return err
			}
			<-ss.Context().Done()
			return ss.Context().Err()
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithCancel(t.Context())
		cs := open(ctx, t, cc, both)
		if h, err := cs.Header(); fmt.Sprint(h["x-h"]) != "[1]" || err != nil {
			t.Errorf("header %v %v, want x-h 1", h, err)
		}
		cancel()
		if got := drain(t, cs); got != "Canceled" {
			t.Errorf("after cancel: %s, want Canceled", got)
		}
		if err := cs.SendMsg(new(text)); !errors.Is(err, io.EOF) {
			t.Errorf("send after cancel: %v, want io.EOF", err)
		}
	})
}

func TestStreamDeadline(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(ss grpc.ServerStream) error {
			if err := ss.SendMsg(wrapperspb.String("a")); err != nil {
				return err
			}
			return ss.RecvMsg(new(text)) // waits for the client, who waits too
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // in which what comes before must arrive
		defer cancel()
		if got := drain(t, open(ctx, t, cc, both)); got != "a DeadlineExceeded" {
			t.Errorf("got %s, want a DeadlineExceeded", got)
		}
	})
}

func TestSendAfterTheHandlerHasReturned(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(grpc.ServerStream) error { return status.Error(codes.ResourceExhausted, "enough") }}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		cs := open(t.Context(), t, cc, up)
		var err error
		for range 100_000 {
			if err = cs.SendMsg(wrapperspb.String(strings.Repeat("x", 1000))); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("send: %v, want io.EOF", err)
		}
		wantStatus(t, "receive", cs.RecvMsg(new(text)), codes.ResourceExhausted, "enough")
	})
}

func TestAUnaryMethodAsAStream(t *testing.T) {
	onBothChannels(t, newEcho, func(t *testing.T, e *echo, cc grpc.ClientConnInterface) {
		cs, err := cc.NewStream(t.Context(), both, unaryName)
		if err != nil {
			t.Fatal(err)
		}
		send(t, cs, "a")
		_ = cs.CloseSend()
		if got := drain(t, cs); got != "a EOF" {
			t.Errorf("got %s, want a EOF", got)
		}
	})
}

func TestAStreamAsACall(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{stream: func(ss grpc.ServerStream) error {
			m := new(text)
			if err := ss.RecvMsg(m); err != nil {
				return err
			}
			return ss.SendMsg(m)
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		out := new(text)
		if err := cc.Invoke(t.Context(), "/test.Echo/Both", wrapperspb.String("a"), out); err != nil || out.GetValue() != "a" {
			t.Errorf("got %v %v, want a", out, err)
		}
	})
}

func TestStreamPanicIsInternal(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		e.stream = func(grpc.ServerStream) error { panic("kaboom") }
		err := open(t.Context(), t, ch, both).RecvMsg(new(text))
		wantStatus(t, "panic", err, codes.Internal, "inproc: handler of /test.Echo/Both panicked: kaboom")
	})
}

func TestSenderWaitsForTheReceiver(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		sent := 0
		e.stream = func(ss grpc.ServerStream) error {
			for ; sent < 1000; sent++ {
				if err := ss.SendMsg(wrapperspb.String(strings.Repeat("x", 1<<10))); err != nil {
					return err
				}
			}
			return nil
		}
		cs := open(t.Context(), t, ch, down)
		send(t, cs, "go")
		synctest.Wait()
		if sent < 1 || sent > 64 {
			t.Errorf("the handler is %d messages of 1 KiB ahead, want 1 to 64", sent)
		}
		if got := strings.Count(drain(t, cs), " "); got != 1000 {
			t.Errorf("%d messages arrived, want 1000", got)
		}
	})
}

func TestCancelWakesBothSides(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		results := make(chan error, 2)
		e.stream = func(ss grpc.ServerStream) error {
			var err error
			for err == nil {
				err = ss.SendMsg(wrapperspb.String(strings.Repeat("x", 1<<10)))
			}
			results <- err
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		cs := open(ctx, t, ch, both)
		go func() {
			var err error
			for err == nil {
				err = cs.SendMsg(wrapperspb.String(strings.Repeat("x", 1<<10)))
			}
			results <- err
		}()
		synctest.Wait() // both sides are full
		cancel()
		for range 2 {
			if err := <-results; !errors.Is(err, io.EOF) && status.Code(err) != codes.Canceled {
				t.Errorf("a sender got %v, want io.EOF or Canceled", err)
			}
		}
	})
}

func TestABadReplyEndsTheHandler(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		e.stream = func(ss grpc.ServerStream) error {
			_ = ss.SendMsg(wrapperspb.String("a"))
			<-ss.Context().Done()
			return nil
		}
		cs := open(t.Context(), t, ch, both)
		wantStatus(t, "receive", cs.RecvMsg("not a message"), codes.Internal, "")
	})
}
