package servertest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A Proxy stands before a server and can keep its answers back, cut the connections and refuse new
// ones. Its methods may be called concurrently.
type Proxy struct {
	listener net.Listener
	server   string
	held     chan struct{}

	mu      sync.Mutex
	conns   []net.Conn
	refused bool
	hold    chan struct{} // answers go through once it is closed
}

// NewProxy returns a proxy for the server at host:port, on a free port of 127.0.0.1, until the end
// of the test.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, server: server, hold: make(chan struct{}), held: make(chan struct{}, 1)}
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
		p.Cut()
	})
	return p
}

// Addr returns host:port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Held gets a value when an answer is kept back.
func (p *Proxy) Held() <-chan struct{} { return p.held }

// Refuse says whether new connections are ended at once.
func (p *Proxy) Refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = yes
}

// Keep starts to keep answers back. Release ends that, and so does Cut, with the connections.
func (p *Proxy) Keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = make(chan struct{})
}

// Release lets the answers through.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
}

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	p.release()
}

func (p *Proxy) release() {
	select {
	case <-p.hold:
	default:
		close(p.hold)
	}
}

func (p *Proxy) serve(client net.Conn) {
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

func (p *Proxy) answer(server, client net.Conn) {
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
