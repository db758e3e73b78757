package natsdriver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A proxy stands before a server and can keep its answers back, and cut the connections.
type proxy struct {
	net.Listener
	server string

	mu    sync.Mutex
	conns []net.Conn
	hold  chan struct{} // answers go through once it is closed
	held  chan struct{} // gets a value when an answer is kept back
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, server: server, hold: make(chan struct{}), held: make(chan struct{}, 1)}
	close(p.hold)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(client)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	go func() { _, _ = io.Copy(server, client) }()
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			p.mu.Lock()
			hold := p.hold
			p.mu.Unlock()
			select {
			case <-hold:
			default:
				select {
				case p.held <- struct{}{}:
				default:
				}
				<-hold
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
}

// keep starts to keep answers back; release ends that, and cut does with the connections.
func (p *proxy) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = make(chan struct{})
}

// release lets the answers through.
func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.hold)
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	select {
	case <-p.hold:
	default:
		close(p.hold)
	}
}

// TestCutWhileWaiting: a Publish that waits for an answer ends when the connection breaks, says so, and can be repeated.
func TestCutWhileWaiting(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	p := startProxy(t, strings.TrimPrefix(s.s.ClientURL(), "nats://"))
	b := open(t, "nats://"+p.Addr().String()+"?atomic=true")
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 5, 40} {
		batch := messages("t", "m", n)
		p.keep()
		result := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		go func() { result <- b.Publish(ctx, batch) }()
		<-p.held
		start := time.Now()
		p.cut()
		err := <-result
		cancel()
		if took := time.Since(start); err == nil || took > 8*time.Second {
			t.Errorf("Publish of %d messages whose connection was cut = %v after %v, want an error soon", n, err, took)
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish of %d messages whose connection was cut = %v, want no error of the caller's context", n, err)
		}
		until(t, "the reconnection", func() bool { return b.Publish(t.Context(), batch) == nil })
	}
	if ids := storedIDs(t, admin(t, s), "t"); len(ids) != 40 { // m0 is in both batches
		t.Errorf("the stream has %v, want each of m0 to m39 once", ids)
	}
}

// TestIdleThroughRestart: a member that waited for messages when the server stopped gets the next one soon after.
func TestIdleThroughRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	got := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
		result <- b.Subscribe(ctx, sub, func(d driver.Delivery) {
			_ = d.Ack(ctx)
			got <- d.ID
		})
	}()
	for i, id := range []string{"before", "after"} {
		batch := messages("t", id, 1)
		until(t, "the server", func() bool { return b.Publish(t.Context(), batch) == nil })
		select {
		case <-got:
		case <-time.After(10 * time.Second):
			t.Fatalf("message %s did not come within 10s", id)
		}
		if i == 0 {
			s.restart(t)
			until(t, "the reconnection", func() bool { return b.Healthy() == nil })
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
}
