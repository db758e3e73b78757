package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Serve answers on both ports until Shutdown has ended, and then returns nil.
// It listens if Listen was not called, and returns early, with everything cut,
// when a port fails. After Shutdown it returns nil at once.
func (s *Server) Serve() error {
	if s.isDraining() {
		<-s.stopped
		return nil
	}
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	httpListener, grpcListener := s.httpListener, s.grpcListener
	s.mu.Unlock()
	failed := make(chan error, 2)
	go func() {
		if err := s.http.Serve(httpListener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("server: serve HTTP on %s: %w", httpListener.Addr(), err)
		}
	}()
	if grpcListener != nil {
		go func() {
			if err := s.grpc.Serve(grpcListener); err != nil && !s.isDraining() {
				failed <- fmt.Errorf("server: serve gRPC on %s: %w", grpcListener.Addr(), err)
			}
		}()
	}
	select {
	case <-s.stopped:
		return nil
	case err := <-failed:
		if s.isDraining() {
			<-s.stopped
			return nil
		}
		now, cancel := context.WithCancel(context.Background())
		cancel()
		return errors.Join(err, s.Shutdown(now))
	}
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// Shutdown turns readiness red, closes both ports to new connections and waits
// for the calls under way, those within the process included. When ctx ends
// first it cuts them and returns an error that names what it waited for. It
// may come before Listen or Serve; a further call waits for the first and
// returns the same. Connections that a handler has hijacked are left alone
// once the handler has returned.
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
	unserved := []interface{ Close() error }{}
	if s.httpListener != nil {
		unserved = append(unserved, s.httpListener)
	}
	if s.grpcListener != nil {
		unserved = append(unserved, s.grpcListener)
	}
	s.mu.Unlock()

	drained := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.http.Shutdown(ctx) }) // only says that ctx has ended
	wg.Go(s.grpc.GracefulStop)
	wg.Go(func() { s.flights.wait(ctx) })
	go func() {
		wg.Wait()
		close(drained)
	}()
	for _, l := range unserved {
		// Those that Serve never took; for the others it is the second close.
		_ = l.Close()
	}
	select {
	case <-drained:
	case <-ctx.Done():
	}
	busy := s.Busy()
	cut := ctx.Err() != nil && len(busy) > 0
	s.flights.close()
	_ = s.http.Close()
	s.grpc.Stop()
	if cut {
		return fmt.Errorf("server: shutdown: cut %s: %w", strings.Join(busy, "; "), context.Cause(ctx))
	}
	return nil
}
