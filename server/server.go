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

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/telemetry"
)

// Options configure a Server. The zero value serves HTTP on :8080 and, if there is a gRPC service,
// gRPC on :50051.
type Options struct {
	HTTP string // address of the HTTP port; default ":8080"
	GRPC string // address of the gRPC port; default ":50051"

	// HTTPSetting and GRPCSetting are the names of the settings for these addresses, for the error
	// of Listen; default LISTEN and GRPC_LISTEN.
	HTTPSetting, GRPCSetting string

	// Telemetry receives spans, metrics and logs. The Server does not shut it down. Default:
	// telemetry of its own, named after the program. A change after New has no effect.
	Telemetry *telemetry.Telemetry

	// TLS, if set, serves both ports with TLS. Use its GetCertificate for certificates that change.
	// Default: plain text.
	TLS *tls.Config

	// CheckPeer, if set, is called with the connection of each request and RPC from the network;
	// state is nil for plain text. If it returns an error the answer is 403 or Unauthenticated, and
	// the error is logged. /livez, /readyz and the gRPC health service are not checked, and neither
	// is /metrics for callers on this machine. Default: everybody may call.
	CheckPeer func(state *tls.ConnectionState) error

	// Middleware wraps the whole mux, the first outermost. See the chain in the package comment.
	Middleware []func(http.Handler) http.Handler

	// RouteMiddleware wraps the handler of each route, the first outermost. It runs inside of
	// Middleware and the mux, so that the request has its Pattern and path values.
	RouteMiddleware []func(http.Handler) http.Handler

	// CheckRoutes, if set, is called by Listen with the pattern of every route and the full method
	// of every RPC, except those of health and reflection. Listen returns its error.
	CheckRoutes func(routes []string) error

	// Unary and Stream wrap all RPCs, the first outermost, except those of the health service.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor

	// MaxBody is the largest request body in bytes; default 1 MiB, negative means no limit. A larger
	// one is answered as Handler describes. The function MaxBody sets the limit of one route.
	MaxBody int64

	// Limit bounds how much the server works on at a time.
	Limit Limit

	// Priority returns how important a call is. route is the pattern of the request in the mux, or
	// the full method of the RPC, such as /user.v1.UserService/GetUser. It is called only when a
	// call cannot be admitted at once. Default: all are Normal.
	Priority func(route string) Priority

	// Timeout is the deadline of a request or unary RPC whose caller sent none; default 5 s,
	// negative means no deadline. It does not end a stream; see Handler.
	Timeout time.Duration

	// Reflection turns on gRPC reflection. A server that listens on loopback always has it.
	// Elsewhere it is off by default, because it tells everybody what can be called.
	Reflection bool

	// DeadlineFrom are the callers whose deadlines are followed: the header X-Request-Timeout-Ms of
	// a request, and the grpc-timeout of an RPC if it is longer than Timeout. From other callers
	// the header is ignored and the timeout of an RPC is at most Timeout. Calls within the process
	// are always trusted. Default: everybody. At the edge of a system, where anybody can call, set
	// it to empty but not nil, which means nobody.
	DeadlineFrom Peers

	// TraceFrom are the callers whose traces are continued, from the header traceparent of a
	// request or the metadata of an RPC. For other callers a new trace begins, with a link to
	// theirs, so that strangers do not decide what is sampled. Default: everybody.
	TraceFrom Peers

	// VersionFrom are the callers who may choose versions of other services, with the header
	// Kaptar-Version of a request or the metadata of an RPC, such as
	// "user-service=v2, order-service=v3" (see transport.WithVersion). It is ignored from other
	// callers, if it comes twice, and if it is malformed. Default: everybody.
	VersionFrom Peers

	// AdminFrom are the callers who may use /livez, /readyz and /metrics. If it is set, a request that
	// came through a proxy, with the header Forwarded or X-Forwarded-For, may not. Other callers get
	// 404. Calls within the process without these headers are always allowed. Default: everybody.
	AdminFrom Peers

	// WriteTimeout is how long a client may go without reading any of an HTTP response before its
	// connection is closed; default 30 s, negative means no limit.
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

// Server serves HTTP and gRPC. Make it with New. Routes and services must be added before Listen.
// Its methods may be called concurrently.
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
	mistakes     []error   // made during set-up, returned by Listen
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

// New returns a Server that does not listen yet.
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
	s.scrape = promhttp.HandlerFor(t.Registry(), promhttp.HandlerOpts{ErrorLog: scrapeLog{s.log}})
	s.registerGauges()
	s.channel = inproc.NewChannel(s.unary, s.stream)
	s.health = health.NewServer()
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.channel, s.health)
	return s
}

// Options returns the options, which may be changed until Listen or the first call. All except
// Telemetry are read then.
func (s *Server) Options() *Options { return &s.opts }

// Handler returns the whole HTTP side as one handler, as the network sees it. It is for calls
// within the process and for tests.
//
// A request whose deadline has passed, by the header X-Request-Timeout-Ms or by its context, gets
// 504 before any handler runs. So does one whose handler has written nothing when the deadline
// passes. If the body is too large the handler's Read fails with *http.MaxBytesError, and the error
// status that the handler then sends becomes 413. If the body does not arrive in time it becomes
// 408. If the body is malformed or cut off, a status of 500 or more becomes 400. A panic gives 500,
// or a cut connection if the answer had begun. All of these, and the 404 and 405 of the mux, are
// problems in the form of RFC 9457.
//
// An answer that was flushed, or whose connection was hijacked, is a stream: its context has no
// deadline from then on. The context ends when the client goes away, and with the cause ErrStopping
// when Shutdown begins. A handler that needs more time before it answers, such as a long poll,
// moves the deadline with SetWriteDeadline of an http.ResponseController.
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

// isAdmin reports whether r may use /livez, /readyz and /metrics.
func (s *Server) isAdmin(r *http.Request) bool {
	direct := len(r.Header["Forwarded"]) == 0 && len(r.Header["X-Forwarded-For"]) == 0
	return s.opts.AdminFrom == nil || direct && s.opts.AdminFrom.Has(r.RemoteAddr)
}
