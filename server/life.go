package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
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
	web, rpc, httpListener, grpcListener, conns := s.http, s.grpc, s.httpListener, s.grpcListener, s.conns
	s.mu.Unlock()
	if web == nil { // Shutdown was first
		<-s.stopped
		return nil
	}
	failed := make(chan error, 2)
	go func() {
		if err := serveHTTP(web, httpListener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("server: serve HTTP on %s: %w", httpListener.Addr(), err)
		}
	}()
	if s.opts.WriteTimeout > 0 {
		go conns.watch(s.opts.WriteTimeout, s.stopped)
	}
	if grpcListener != nil {
		go func() {
			if err := rpc.Serve(grpcListener); err != nil && !s.isDraining() {
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

func serveHTTP(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// The bounds of a stop within that of the context.
const (
	streamGrace = 2 * time.Second        // for streams to end, once their contexts have
	stuckGrace  = time.Second            // for a client to take some of what is written to it
	lastGrace   = 100 * time.Millisecond // for calls to end that are cut because the time is over
)

// Shutdown turns readiness red, closes both ports to new connections and waits for the calls under
// way, those within the process included.
//
// Requests and unary RPCs are finished. The contexts of streams end at once, with the cause
// ErrStopping; a stream that is still there 2 s later is cut. When ctx ends first, Shutdown cuts
// what is left and returns an error that names the requests and RPCs among it; a stream that is cut
// is no error, but told in the log. A connection whose client takes nothing for a second is closed.
//
// Shutdown may come before Listen or Serve; a further call waits for the first and returns the
// same. Connections that a handler has hijacked are left alone once the handler has returned.
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
	web, rpc, httpListener, grpcListener, conns := s.http, s.grpc, s.httpListener, s.grpcListener, s.conns
	s.mu.Unlock()

	quiet := make(chan struct{})
	var wg sync.WaitGroup
	if web != nil {
		wg.Go(func() { _ = web.Shutdown(ctx) }) // only says that ctx has ended
		_ = httpListener.Close()                // Serve may not have taken it; if it has, it is the second close
		go conns.watch(stuckGrace, s.stopped)
	}
	if rpc != nil {
		wg.Go(rpc.GracefulStop)
		_ = grpcListener.Close()
	}
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
	if web != nil {
		_ = web.Close()
	}
	if rpc != nil {
		rpc.Stop()
	}
	return err
}

// finishCalls waits until nothing is under way, and ends by force what does not end.
func (s *Server) finishCalls(ctx context.Context) error {
	s.flights.stop()
	idle := s.flights.wait()
	grace := time.NewTimer(streamGrace)
	defer grace.Stop()
	select {
	case <-idle:
		return nil
	case <-grace.C:
		s.dropStreams()
		select {
		case <-idle:
			return nil
		case <-ctx.Done():
		}
	case <-ctx.Done():
		// What was told to end a moment ago still may.
		select {
		case <-idle:
			return nil
		case <-time.After(lastGrace):
		}
		s.dropStreams()
	}
	busy := s.flights.describe(func(f *flight) bool { return !f.stream })
	s.flights.close()
	if len(busy) == 0 {
		return nil
	}
	return fmt.Errorf("server: shutdown: cut %s: %w", strings.Join(busy, "; "), context.Cause(ctx))
}

func (s *Server) dropStreams() {
	if streams := s.flights.describe(func(f *flight) bool { return f.stream }); len(streams) > 0 {
		s.log.Warn("streams cut that did not end when the service stopped", "streams", strings.Join(streams, "; "))
	}
	s.flights.dropStreams()
}
