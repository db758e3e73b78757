package servertest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// A Proxy stands before a server and can keep its answers back, be slow, cut the connections and
// refuse new ones. Its methods may be called concurrently.
type Proxy struct {
	listener net.Listener
	server   string
	held     chan struct{}

	mu      sync.Mutex
	conns   []net.Conn
	refused bool
	hold    chan struct{} // answers go through once it is closed

	bad     bad
	changed chan struct{} // closed when bad is another one
}

// bad is what is wrong with the way to a server. The zero value is nothing.
type bad struct {
	delay    time.Duration // of each piece, each way
	rate     int           // bytes a second, each way; 0: as they come
	up, down bool          // nothing reaches the server, or the client
}

// NewProxy returns a proxy for the server at host:port, on a free port of 127.0.0.1, until the end
// of the test.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, server: server, hold: make(chan struct{}), held: make(chan struct{}, 1), changed: make(chan struct{})}
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

// Slow delays each piece, each way, or lets so many bytes a second through; 0 is none, and all.
func (p *Proxy) Slow(delay time.Duration, rate int) {
	p.be(func(b *bad) { b.delay, b.rate = delay, rate })
}

// Block keeps back what goes to the server, or what comes from it, until it is called with false.
func (p *Proxy) Block(up, down bool) { p.be(func(b *bad) { b.up, b.down = up, down }) }

func (p *Proxy) be(change func(*bad)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.bad)
	close(p.changed)
	p.changed = make(chan struct{})
}

// now returns what is wrong, and a channel that closes when that is something else.
func (p *Proxy) now() (bad, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bad, p.changed
}

// pass writes a piece as the way allows.
func (p *Proxy) pass(to net.Conn, piece []byte, up bool) error {
	bad, _ := p.now()
	if bad.delay > 0 {
		<-time.After(bad.delay)
	}
	for len(piece) > 0 {
		bad, changed := p.now()
		n := len(piece)
		switch {
		case up && bad.up || !up && bad.down:
			<-changed
			continue
		case bad.rate > 0:
			select {
			case <-changed:
				continue
			case <-time.After(time.Second):
				n = min(n, bad.rate)
			}
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return err
		}
		piece = piece[n:]
	}
	return nil
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
	go p.ask(client, server)
	go p.answer(server, client)
}

func (p *Proxy) ask(client, server net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := client.Read(buf)
		if err == nil {
			err = p.pass(server, buf[:n], true)
		}
		if err != nil {
			_ = server.Close()
			return
		}
	}
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
			steady.Signal(p.held)
			<-hold
		}
		if p.pass(client, buf[:n], false) != nil {
			return
		}
	}
}
