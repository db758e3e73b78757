package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/listen"
)

// Serve serves both ports until Shutdown has ended, and then returns nil. It calls Listen if
// necessary. If a port fails it cuts all calls and returns the error. After Shutdown it returns
// nil.
func (s *Server) Serve() error {
	if err := s.Listen(); err != nil {
		return err
	}
	if s.http == nil { // Shutdown was first
		<-s.stopped
		return nil
	}
	failed := make(chan error, 2)
	serve := func(what string, l net.Listener, run func(net.Listener) error) {
		if err := run(l); err != nil && !s.isDraining() {
			failed <- fmt.Errorf("server: serve %s on %s: %w", what, l.Addr(), err)
		}
	}
	go serve("HTTP", s.httpListener, s.serveHTTP)
	if s.grpc != nil {
		go serve("gRPC", s.grpcListener, s.grpc.Serve)
	}
	if s.opts.WriteTimeout > 0 {
		go s.httpListener.watch(s.opts.WriteTimeout, s.stopped)
	}
	select {
	case <-s.stopped:
		return nil
	case err := <-failed:
		now, cancel := context.WithCancel(context.Background())
		cancel()
		return errors.Join(err, s.Shutdown(now))
	}
}

func (s *Server) serveHTTP(l net.Listener) error {
	if s.opts.TLS != nil {
		return s.http.ServeTLS(l, "", "")
	}
	return s.http.Serve(l)
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// Bounds of the steps of a stop, within that of the context.
const (
	streamGrace = 2 * time.Second        // for streams to end, once their contexts have
	stuckGrace  = time.Second            // for a client to take some of what is written to it
	lastGrace   = 100 * time.Millisecond // for calls to end that are about to be cut
)

// Shutdown turns readiness red, closes both ports to new connections and waits for the calls in
// progress, including those within the process.
//
// Requests and unary RPCs can finish. The contexts of streams end at once, with the cause
// ErrStopping; a stream that has not ended 2 s later is cut. When ctx ends first, Shutdown cuts all
// calls and returns an error that names the requests and unary RPCs. Streams that are cut are only
// logged. A connection whose client reads nothing for a second is closed.
//
// Shutdown may be called before Listen or Serve. Further calls wait for the first and return its
// result. Hijacked connections whose handler has returned are not closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop.Do(func() {
		close(s.draining)
		s.SetReady(false)
		s.stopErr = s.drain(ctx)
		s.flights.close()
		close(s.stopped)
	})
	return s.stopErr
}

func (s *Server) drain(ctx context.Context) error {
	s.mu.Lock()
	s.listening = true // a Listen from now on binds nothing
	s.mu.Unlock()

	var wg sync.WaitGroup
	if s.http != nil {
		wg.Go(func() { _ = s.http.Shutdown(ctx) }) // only says that ctx has ended
		_ = s.httpListener.Close()                 // in case Serve has not taken it over yet
		go s.httpListener.watch(stuckGrace, s.stopped)
		defer func() { _ = s.http.Close() }()
	}
	if s.grpc != nil {
		wg.Go(s.grpc.GracefulStop)
		_ = s.grpcListener.Close()
		defer s.grpc.Stop()
	}
	quiet := make(chan struct{})
	go func() {
		wg.Wait()
		close(quiet)
	}()
	err := s.finishCalls(ctx)
	select {
	case <-quiet: // what was written is on its way
	case <-ctx.Done():
	case <-time.After(stuckGrace):
	}
	return err
}

// finishCalls waits until no call is in progress, and cuts those that do not end in time.
func (s *Server) finishCalls(ctx context.Context) error {
	s.flights.stop()
	idle := s.flights.wait()
	grace := time.NewTimer(streamGrace)
	defer grace.Stop()
	select {
	case <-idle:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	select { // who was told to end a moment ago, or before the machine stood still, may still do so
	case <-idle:
		return nil
	case <-time.After(lastGrace):
	}
	if streams := s.flights.describe(isStream); len(streams) > 0 {
		s.log.Warn("streams cut that did not end when the service stopped", "streams", strings.Join(streams, "; "))
	}
	s.flights.dropStreams()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	busy := s.flights.describe(hasEnd)
	s.flights.close()
	if len(busy) == 0 {
		return nil
	}
	return fmt.Errorf("server: shutdown: cut %s: %w", strings.Join(busy, "; "), context.Cause(ctx))
}

// Listen binds the HTTP port, and the gRPC port if a gRPC service was registered. If a port is in
// use, the error wraps syscall.EADDRINUSE and names the address, the process that has it if the
// system tells, and the setting to change. After an error nothing is bound.
func (s *Server) Listen() error {
	s.prepare()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listening {
		return nil
	}
	if err := errors.Join(append(s.mistakes, s.checkRoutes())...); err != nil {
		return err
	}
	l, err := listen.TCP(s.opts.HTTP, s.opts.HTTPSetting)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if len(s.services) > 0 {
		g, err := listen.TCP(s.opts.GRPC, s.opts.GRPCSetting)
		if err != nil {
			return errors.Join(fmt.Errorf("server: %w", err), l.Close())
		}
		s.grpcListener = newConns(g, s.opts.Limit.Connections, s.draining)
		s.newGRPC()
	}
	s.httpListener = newConns(l, s.opts.Limit.Connections, s.draining)
	s.http = s.newHTTP()
	s.listening = true
	return nil
}

func (s *Server) newHTTP() *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.Handler(),
		Protocols:         p,
		TLSConfig:         s.opts.TLS,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ConnState:         rested,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// HTTPAddr returns the address on which HTTP is served, with the actual port; "" before Listen.
func (s *Server) HTTPAddr() string { return s.addr(&s.httpListener) }

// GRPCAddr returns the address on which gRPC is served, with the actual port; "" before Listen and
// without a gRPC service.
func (s *Server) GRPCAddr() string { return s.addr(&s.grpcListener) }

func (s *Server) addr(l **conns) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *l == nil {
		return ""
	}
	return (*l).Addr().String()
}
