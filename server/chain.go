package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/internal/limit"
)

// prepare reads the options, the first time it is called.
func (s *Server) prepare() {
	s.prepared.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.opts.setDefaults()
		s.limiter = limit.New(limit.Options{Max: s.opts.Limit.Max, Wait: s.opts.Limit.Wait})
		s.routes = s.mux
		if len(s.opts.Middleware) == 0 {
			return
		}
		s.routes = http.HandlerFunc(s.dispatch)
		for i, mw := range slices.Backward(s.opts.Middleware) {
			if mw == nil {
				continue
			}
			if h := mw(s.routes); h != nil {
				s.routes = h
			} else {
				s.mistakes = append(s.mistakes, fmt.Errorf("server: middleware %d returned no handler", i))
			}
		}
	})
}

// dispatch is the inner end of the middleware. The request may be a copy of the one that the
// middleware was given, so that what the mux writes into it would not be seen outside.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	if x := exchangeOf(r.Context()); x != nil {
		x.setRoute(s.lookUp(r))
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) lookUp(r *http.Request) (pattern string) {
	_, pattern = s.mux.Handler(r)
	return pattern
}

// SetRoute names the route of r for metrics, log and span: for a router that stands behind one
// pattern of the mux, and whose routes would all be counted as that one. The name must be a
// pattern, such as "/old/{id}", not a path. Outside of a Server it does nothing.
func SetRoute(r *http.Request, pattern string) {
	if x := exchangeOf(r.Context()); x != nil {
		x.setRoute(pattern)
	}
}

// own are the paths that the server answers itself.
var own = []string{"/livez", "/readyz", "/metrics"}

// checkRoutes finds routes that would never be served.
func (s *Server) checkRoutes() error {
	var errs []error
	for _, path := range own {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			pattern := s.lookUp(&http.Request{Method: method, URL: &url.URL{Path: path}})
			if pattern == path || strings.HasSuffix(pattern, " "+path) {
				errs = append(errs, fmt.Errorf("server: route %q: expected another path, as the server answers %s itself; "+
					"AddReadiness adds to /readyz, a collector to /metrics", pattern, path))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// intercepted puts the user's interceptors around a handler of a unary RPC.
func (s *Server) intercepted(info *grpc.UnaryServerInfo, h grpc.UnaryHandler) grpc.UnaryHandler {
	for _, i := range slices.Backward(s.opts.Unary) {
		next := h
		h = func(ctx context.Context, req any) (any, error) { return i(ctx, req, info, next) }
	}
	return h
}

// interceptedStream does the same for a streaming RPC.
func (s *Server) interceptedStream(info *grpc.StreamServerInfo, h grpc.StreamHandler) grpc.StreamHandler {
	for _, i := range slices.Backward(s.opts.Stream) {
		next := h
		h = func(srv any, ss grpc.ServerStream) error { return i(srv, ss, info, next) }
	}
	return h
}
