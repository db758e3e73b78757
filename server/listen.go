package server

import (
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/reflection"

	"github.com/kaptar/kaptar/internal/listen"
)

// Listen binds the HTTP port, and the gRPC port if a gRPC service was
// registered. When one is taken, the error names the address, who holds it
// where the system tells, and the setting to change; errors.Is finds
// syscall.EADDRINUSE in it. After an error nothing is bound.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listening {
		return nil
	}
	if s.registration != nil {
		return s.registration
	}
	l, err := listen.TCP(s.opts.HTTP, s.opts.HTTPSetting)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if len(s.services) > 0 {
		s.grpcListener, err = listen.TCP(s.opts.GRPC, s.opts.GRPCSetting)
		if err != nil {
			return errors.Join(fmt.Errorf("server: %w", err), l.Close())
		}
		reflection.Register(s.grpc)
	}
	s.httpListener = l
	s.listening = true
	return nil
}

// HTTPAddr is the address that HTTP is served on, with the actual port; ""
// before Listen.
func (s *Server) HTTPAddr() string { return s.addr(&s.httpListener) }

// GRPCAddr is the address that gRPC is served on, with the actual port; ""
// before Listen and without a gRPC service.
func (s *Server) GRPCAddr() string { return s.addr(&s.grpcListener) }

func (s *Server) addr(l *net.Listener) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *l == nil {
		return ""
	}
	return (*l).Addr().String()
}
