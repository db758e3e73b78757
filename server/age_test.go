package server

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p pipes) Close() error   { close(p); return nil }

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

// TestConnectionAge: a gRPC connection is told to end after half an hour, give or take a tenth, so
// that clients find new instances.
func TestConnectionAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		l := make(pipes)
		s.grpcListener = newConns(l, 10, s.draining)
		s.newGRPC()
		go func() { _ = s.grpc.Serve(s.grpcListener) }()
		client, at := net.Pipe()
		l <- at
		begun := time.Now()
		f := http2.NewFramer(client, client)
		written := make(chan struct{}) // while the server writes, too
		go func() {
			defer close(written)
			_, _ = io.WriteString(client, http2.ClientPreface)
			_ = f.WriteSettings()
		}()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal("no GOAWAY:", err)
			}
			if ping, ok := frame.(*http2.PingFrame); ok && !ping.IsAck() {
				<-written // a Framer writes one frame at a time
				_ = f.WritePing(true, ping.Data)
			}
			if _, away := frame.(*http2.GoAwayFrame); away {
				break
			}
		}
		if age := time.Since(begun); age < 27*time.Minute || age > 33*time.Minute {
			t.Errorf("GOAWAY after %v, want about 30 min", age)
		}
		_ = client.Close()
		s.grpc.Stop()
		synctest.Wait()
	})
}
