package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/telemetry"
)

// Options configure a Server. The zero value serves HTTP on :8080 and, if there is a gRPC service,
// gRPC on :50051.
type Options struct {
	HTTP string // address of the HTTP port; default ":8080"
	GRPC string // address of the gRPC port; default ":50051"

	// HTTPSetting and GRPCSetting name the settings that hold these addresses, for the error of
	// Listen; default LISTEN and GRPC_LISTEN.
	HTTPSetting, GRPCSetting string

	// Telemetry takes spans, metrics and logs. The Server does not shut it down. Default:
	// telemetry of its own, named after the program. A change after New has no effect.
	Telemetry *telemetry.Telemetry

	// TLS, if set, serves both ports with TLS. Certificates that change come from its
	// GetCertificate. Default: plain text.
	TLS *tls.Config

	// CheckPeer, if set, is asked about the connection of each request and RPC that comes over the
	// network; its state is nil for plain text. With an error the answer is 403, or Unauthenticated,
	// and the log has the reason. /livez, /readyz and the health service of gRPC answer everybody,
	// and /metrics whoever calls from this machine. Default: everybody may call.
	CheckPeer func(state *tls.ConnectionState) error

	// Middleware goes around all routes at once, the first outermost. The package comment has the
	// order of the whole chain.
	Middleware []func(http.Handler) http.Handler

	// RouteMiddleware goes around the handler of each route, the first outermost. It stands inside of
	// Middleware and of the mux: the request has its Pattern and its path values.
	RouteMiddleware []func(http.Handler) http.Handler

	// CheckRoutes, if set, is called by Listen with the pattern of every route and the full method of
	// every RPC, but those of health and reflection. An error keeps the server from listening.
	CheckRoutes func(routes []string) error

	// Unary and Stream go around all RPCs, the first outermost, except those of the health service.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor

	// MaxBody is the largest request body in bytes; default 1 MiB, negative means no limit. See
	// Handler for what a larger one gets, and the function MaxBody for a limit of one route.
	MaxBody int64

	// Limit bounds what is worked on at a time.
	Limit Limit

	// Priority says how important a route is, by its pattern as the mux has it, or an RPC, by its
	// full method such as /user.v1.UserService/GetUser. It is asked only when there is no room.
	// Default: all are Normal.
	Priority func(route string) Priority

	// Timeout is the deadline of a request or unary RPC whose caller sent none; default 5 s,
	// negative means none. It does not end a stream; see Handler.
	Timeout time.Duration

	// Reflection answers gRPC reflection on any address. Without it only a server on loopback does: it
	// tells everybody what can be called.
	Reflection bool

	// DeadlineFrom says whose deadlines count, of a request's header X-Request-Timeout-Ms and, where
	// it is later than Timeout, of an RPC's grpc-timeout. What anybody else sends has no effect. Calls
	// within the process count always. Default: everybody's. At the edge of a system, where anybody
	// can call, it should be empty and not nil: nobody's.
	DeadlineFrom Peers

	// TraceFrom says whose traces are continued, of a request's header traceparent and of an RPC's
	// metadata. What anybody else sends begins a new trace, with a link to theirs, so that strangers
	// do not decide what is sampled. Default: everybody's.
	TraceFrom Peers

	// VersionFrom says whose wishes for versions of other services count, of a request's header
	// Kaptar-Version and of an RPC's metadata, such as "user-service=v2, order-service=v3" (see
	// transport.WithVersion). What anybody else sends, what comes twice and what is anything but such a
	// list has no effect. Default: everybody's.
	VersionFrom Peers

	// AdminFrom says who may ask /livez, /readyz and /metrics, if the request was not passed on by a
	// proxy: without Forwarded or X-Forwarded-For. To anybody else there are no such routes. Default:
	// everybody. Calls within the process may always.
	AdminFrom Peers

	// WriteTimeout is how long a client may leave an HTTP response where it is, without taking any
	// of it, before its connection is closed; default 30 s, negative means for ever.
	WriteTimeout time.Duration
}

func (o *Options) setDefaults() {
	o.HTTP = cmp.Or(o.HTTP, ":8080")
	o.GRPC = cmp.Or(o.GRPC, ":50051")
	o.HTTPSetting = cmp.Or(o.HTTPSetting, "LISTEN")
	o.GRPCSetting = cmp.Or(o.GRPCSetting, "GRPC_LISTEN")
	o.MaxBody = cmp.Or(o.MaxBody, 1<<20)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
}

// Server serves HTTP and gRPC. Routes, services and checks are to be added before Listen; all
// other methods may be called concurrently.
type Server struct {
	opts    Options
	log     *slog.Logger
	tel     *telemetry.Telemetry
	mux     *http.ServeMux
	metrics *metrics
	scrape  http.Handler
	flights flights
	limiter *limit.Limiter
	checks  checks

	prepared sync.Once
	inner    http.Handler // the mux, with the middleware around it

	channel *inproc.Channel
	health  *health.Server

	mu           sync.Mutex
	routes       []*route
	services     []service // the gRPC services of the user
	mistakes     []error   // in setting up, told by Listen
	http         *http.Server
	grpc         *grpc.Server
	httpListener *conns
	grpcListener *conns
	listening    bool

	stop     sync.Once
	draining chan struct{} // closed when Shutdown begins
	stopped  chan struct{} // closed when Shutdown ends
	stopErr  error
}

// New returns a Server that listens to nothing yet.
func New(opts Options) *Server {
	opts.setDefaults()
	if opts.Telemetry == nil {
		// With nothing but a name there is no option that could be wrong.
		opts.Telemetry, _ = telemetry.New(context.Background(), telemetry.Options{Service: filepath.Base(os.Args[0])})
	}
	t := opts.Telemetry
	s := &Server{
		opts:     opts,
		log:      t.Logger(),
		tel:      t,
		mux:      http.NewServeMux(),
		metrics:  newMetrics(t.Registry(), t.Service()),
		checks:   checks{state: starting, byName: map[string]func(context.Context) error{}},
		draining: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	s.scrape = newScrape(t.Registry(), s.log)
	telemetry.Register(t.Registry(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "server_calls_in_flight", Help: "HTTP requests and RPCs being answered, those within the process included.",
		ConstLabels: prometheus.Labels{"service": t.Service()},
	}, s.flights.count))
	s.metrics.watchLimit(t.Registry(), func() *limit.Limiter {
		s.prepare()
		return s.limiter
	})
	s.newChannel()
	return s
}

// Options returns the options in force, to be changed until Listen or the first call. All but
// Telemetry are read then, once.
func (s *Server) Options() *Options { return &s.opts }

// Handler is the whole HTTP side as one handler, the way the network sees it: for calls within the
// process and for tests.
//
// A request whose caller allows no more time (internal/deadline.Header, or a context past its
// deadline) gets 504 before any handler runs, and so does one whose handler wrote nothing until
// the deadline had passed. A body that is larger than allowed fails the handler's Read with
// *http.MaxBytesError, and whatever error status the handler then answers becomes 413. When the body
// does not come before the deadline, it becomes 408, and when the body is malformed or cut off, a
// status from 500 becomes 400. A panic
// gets 500, or a cut connection when the answer had begun. All of these, and the 404 and 405 of
// the mux, are problems in the form of RFC 9457.
//
// An answer that was flushed, or whose connection was hijacked, is a stream: no deadline ends its
// context from then on. The context ends when the client goes away, and with the cause ErrStopping
// when Shutdown begins. A handler that needs longer than the deadline before it answers, such as a
// long poll, moves the deadline with SetWriteDeadline of an http.ResponseController.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.route) }

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	var admin http.Handler
	switch r.URL.Path {
	case "/livez":
		admin = http.HandlerFunc(s.livez)
	case "/readyz":
		admin = http.HandlerFunc(s.readyz)
	case "/metrics":
		admin = http.HandlerFunc(s.tellMetrics)
	}
	if admin != nil && s.isAdmin(r) {
		admin.ServeHTTP(w, r)
		return
	}
	s.prepare()
	s.serve(w, r)
}

// isAdmin reports whether r comes from somebody who runs the service.
func (s *Server) isAdmin(r *http.Request) bool {
	direct := len(r.Header["Forwarded"]) == 0 && len(r.Header["X-Forwarded-For"]) == 0
	return s.opts.AdminFrom == nil || direct && s.opts.AdminFrom.Has(r.RemoteAddr)
}
