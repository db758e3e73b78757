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

// prepare builds the chain from the options, once.
func (s *Server) prepare() {
	s.prepared.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.opts.setDefaults()
		for _, r := range s.routes {
			s.wrap(r)
		}
		s.limiter = limit.New(limit.Options{Max: s.opts.Limit.Max, Wait: s.opts.Limit.Wait})
		s.inner = s.mux
		if len(s.opts.Middleware) == 0 {
			return
		}
		s.inner = http.HandlerFunc(s.dispatch)
		for i, mw := range slices.Backward(s.opts.Middleware) {
			if mw == nil {
				continue
			}
			if h := mw(s.inner); h != nil {
				s.inner = h
			} else {
				s.mistakes = append(s.mistakes, fmt.Errorf("server: middleware %d returned no handler", i))
			}
		}
	})
}

// A route is a handler with the route middleware around it.
type route struct {
	pattern string
	http.Handler
}

// Handle registers h for pattern, which has the form of http.ServeMux: "GET /users/{id}". It panics
// when http.ServeMux does. A route registered after Listen is ignored, with an error in the log.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listening {
		s.log.Error("server: route " + pattern + " registered after Listen")
		return
	}
	r := &route{pattern, h}
	if s.inner != nil { // calls within the process may come already, and must find the middleware
		s.wrap(r)
	}
	s.mux.Handle(pattern, r)
	s.routes = append(s.routes, r)
}

// HandleFunc is Handle for a function.
func (s *Server) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	s.Handle(pattern, http.HandlerFunc(h))
}

// wrap puts the route middleware around a route; the caller holds mu.
func (s *Server) wrap(r *route) {
	r.Handler = withoutFiles(r.Handler)
	for i, mw := range slices.Backward(s.opts.RouteMiddleware) {
		if r.Handler = mw(r.Handler); r.Handler == nil {
			s.mistakes = append(s.mistakes, fmt.Errorf("server: route middleware %d returned no handler for %s", i, r.pattern))
			r.Handler = http.NotFoundHandler()
		}
	}
}

// withoutFiles removes the temporary files of a multipart form when h is done. net/http knows only
// the request that it made, of which h gets a copy.
func withoutFiles(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if r.MultipartForm != nil {
				_ = r.MultipartForm.RemoveAll()
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// names returns the patterns of the routes and the full methods of the RPCs; the caller holds mu.
func (s *Server) names() []string {
	var names []string
	for _, r := range s.routes {
		names = append(names, r.pattern)
	}
	for _, service := range s.services {
		for _, m := range service.desc.Methods {
			names = append(names, "/"+service.desc.ServiceName+"/"+m.MethodName)
		}
		for _, m := range service.desc.Streams {
			names = append(names, "/"+service.desc.ServiceName+"/"+m.StreamName)
		}
	}
	return names
}

// dispatch is the handler inside the middleware. It notes the route itself, because r may be a copy
// of the request that the middleware got, and the mux writes the pattern into r only.
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

// SetRoute sets the route of r for metrics, log and span. It is for a router that is registered
// under one pattern of the mux: without it all its routes are counted as one. The name must be a
// pattern such as "/old/{id}", not a path. Outside of a Server it does nothing.
func SetRoute(r *http.Request, pattern string) {
	if x := exchangeOf(r.Context()); x != nil {
		x.setRoute(pattern)
	}
}

// own are the paths that the server answers itself.
var own = []string{"/livez", "/readyz", "/metrics"}

// checkRoutes returns an error for routes that would never be served, and the error of
// Options.CheckRoutes; the caller holds mu.
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
	if s.opts.CheckRoutes != nil {
		errs = append(errs, s.opts.CheckRoutes(s.names()))
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

func (s *Server) interceptedStream(info *grpc.StreamServerInfo, h grpc.StreamHandler) grpc.StreamHandler {
	for _, i := range slices.Backward(s.opts.Stream) {
		next := h
		h = func(srv any, ss grpc.ServerStream) error { return i(srv, ss, info, next) }
	}
	return h
}
