package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/internal/listen"
)

// startTimeout bounds the start of the embedded broker; recovering a large store takes longer than
// the usual few milliseconds.
const startTimeout = 30 * time.Second

// maxPayload leaves room for headers beside the largest message (driver.MaxSize).
const maxPayload = 2 << 20

// embedded is the broker of one Run, which starts when somebody is about to use it.
type embedded struct {
	url, listen, dir string
	free             io.Closer // holds the port until then

	mu     sync.Mutex
	broker *broker // nil: it does not run
}

// has reports whether a URL is that of the embedded broker, with whatever parameters.
func (e *embedded) has(url string) bool {
	server, _, _ := strings.Cut(url, "?")
	return server == e.url
}

func (e *embedded) start(ctx context.Context) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broker == nil {
		_ = e.free.Close()
		e.broker, err = startNATS(ctx, e.listen, e.dir)
	}
	return err
}

func (e *embedded) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broker != nil {
		e.broker.stop()
	}
}

// running is the URL of the broker, or "" when it does not run.
func (e *embedded) running() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broker == nil {
		return ""
	}
	return e.url
}

// broker is an embedded NATS server.
type broker struct {
	server *server.Server
	log    *serverLog
}

// startNATS starts a NATS server with JetStream on address, its store under dir. Every message is
// on the disk before it is acknowledged (SyncAlways): the server's own default syncs every two
// minutes, and what it acknowledged in between is lost with the power.
func startNATS(ctx context.Context, address, dir string) (*broker, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("local: broker address %s: %w", address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 { // the server would take 4222 for 0; Run has chosen one by now
		return nil, fmt.Errorf("local: --nats-listen %s: port %q: expected a number from 1 to 65535", address, portText)
	}
	// Binding first gives an error that says who holds the port.
	probe, err := listen.TCP(address, "--nats-listen")
	if err != nil {
		return nil, fmt.Errorf("local: embedded broker: %w", err)
	}
	if err := probe.Close(); err != nil {
		return nil, fmt.Errorf("local: embedded broker: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "kaptar", Host: host, Port: int(port),
		JetStream: true, StoreDir: dir, SyncAlways: true,
		MaxPayload: maxPayload, NoSigs: true, DisableShortFirstPing: true,
	})
	if err != nil {
		return nil, fmt.Errorf("local: embedded broker: %w", err)
	}
	b := &broker{s, newServerLog()}
	s.SetLoggerV2(b.log, false, false, false)
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	if err := b.wait(ctx); err != nil {
		<-started // a start that goes on beside the shutdown would leave files behind
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("local: embedded broker with its files in %s did not start: %w", dir, err)
	}
	return b, nil
}

func (b *broker) wait(ctx context.Context) error {
	ready := make(chan bool, 1)
	go func() { ready <- b.server.ReadyForConnections(startTimeout) }()
	select {
	case ok := <-ready:
		if ok && b.server.JetStreamEnabled() {
			return nil
		}
		return fmt.Errorf("not ready after %v: %w", startTimeout, b.log.last())
	case err := <-b.log.fatal:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopTimeout bounds the stop of the embedded broker.
const stopTimeout = 5 * time.Second

// stop shuts the server down. Its store is complete at any moment, so being cut short loses
// nothing.
func (b *broker) stop() {
	b.server.Shutdown()
	stopped := make(chan struct{})
	go func() {
		b.server.WaitForShutdown()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
	}
}
