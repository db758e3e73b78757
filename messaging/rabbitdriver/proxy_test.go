package rabbitdriver_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy stands before a server and can keep its answers back, cut the connections and refuse new ones.
type proxy struct {
	net.Listener
	server string

	mu      sync.Mutex
	conns   []net.Conn
	refused bool
	hold    chan struct{} // answers go through once it is closed
	held    chan struct{} // gets a value when an answer is kept back
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused {
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.conns = append(p.conns, client, server)
	go func() { _, _ = io.Copy(server, client) }()
	go p.answer(server, client)
}

func (p *proxy) answer(server, client net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			_ = client.Close()
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
}

func (p *proxy) refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = yes
}

// keep starts to keep answers back; cut ends that, with the connections.
func (p *proxy) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = make(chan struct{})
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
