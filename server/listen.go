package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/kaptar/kaptar/internal/listen"
)

// Listen binds the HTTP port, and the gRPC port if a gRPC service was registered. When one is
// taken, the error names the address, who holds it where the system tells, and the setting to
// change; errors.Is finds syscall.EADDRINUSE in it. After an error nothing is bound.
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
		s.grpcListener = newConns(g, s.opts.MaxConns, s.draining)
		s.newGRPC()
	}
	s.httpListener = newConns(l, s.opts.MaxConns, s.draining)
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
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// HTTPAddr is the address that HTTP is served on, with the actual port; "" before Listen.
func (s *Server) HTTPAddr() string { return s.addr(&s.httpListener) }

// GRPCAddr is the address that gRPC is served on, with the actual port; "" before Listen and
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
