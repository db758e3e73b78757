package server

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/telemetry"
)

// Options configure a Server. The zero value serves HTTP on :8080 and, if
// there is a gRPC service, gRPC on :50051.
type Options struct {
	HTTP string // address of the HTTP port; default ":8080"
	GRPC string // address of the gRPC port; default ":50051"

	// HTTPSetting and GRPCSetting name the settings that hold these addresses,
	// for the error of Listen; default LISTEN and GRPC_LISTEN.
	HTTPSetting, GRPCSetting string

	// Telemetry takes spans, metrics and logs. The Server does not shut it
	// down. Default: telemetry of its own, named after the program.
	Telemetry *telemetry.Telemetry

	// MaxBody is the largest request body in bytes; default 1 MiB, negative
	// means no limit. See Handler for what a larger one gets.
	MaxBody int64

	// Timeout is the deadline of a request or unary RPC whose caller sent
	// none; default 5 s, negative means none.
	Timeout time.Duration
}

// Server serves HTTP and gRPC. Routes, services and checks are to be added
// before Listen; all other methods may be called concurrently.
type Server struct {
	opts    Options
	log     *slog.Logger
	tracer  trace.Tracer
	mux     *http.ServeMux
	metrics *metrics
	scrape  http.Handler
	flights flights
	checks  checks

	http    *http.Server
	grpc    *grpc.Server
	channel *inproc.Channel
	health  *health.Server

	mu           sync.Mutex
	services     map[string]bool // the gRPC services of the user
	registration error           // first mistake made in registering them
	httpListener net.Listener
	grpcListener net.Listener
	listening    bool

	stop     sync.Once
	draining chan struct{} // closed when Shutdown begins
	stopped  chan struct{} // closed when Shutdown ends
	stopErr  error
}

// New returns a Server that listens to nothing yet.
func New(opts Options) *Server {
	opts.HTTP = cmp.Or(opts.HTTP, ":8080")
	opts.GRPC = cmp.Or(opts.GRPC, ":50051")
	opts.HTTPSetting = cmp.Or(opts.HTTPSetting, "LISTEN")
	opts.GRPCSetting = cmp.Or(opts.GRPCSetting, "GRPC_LISTEN")
	opts.MaxBody = cmp.Or(opts.MaxBody, 1<<20)
	opts.Timeout = cmp.Or(opts.Timeout, 5*time.Second)
	if opts.Telemetry == nil {
		// With nothing but a name there is no option that could be wrong.
		opts.Telemetry, _ = telemetry.New(context.Background(), telemetry.Options{Service: filepath.Base(os.Args[0])})
	}
	t := opts.Telemetry
	s := &Server{
		opts:     opts,
		log:      t.Logger(),
		tracer:   t.Tracer(),
		mux:      http.NewServeMux(),
		metrics:  newMetrics(t.Registry(), t.Service()),
		scrape:   promhttp.HandlerFor(t.Registry(), promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(t.Logger().Handler(), slog.LevelError)}),
		services: map[string]bool{},
		draining: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	register(t.Registry(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "server_calls_in_flight", Help: "HTTP requests and RPCs being answered, those within the process included.",
		ConstLabels: prometheus.Labels{"service": t.Service()},
	}, s.flights.count))
	s.http = newHTTPServer(s.Handler(), s.log)
	s.newGRPC()
	return s
}

// Mux takes the routes of the service.
func (s *Server) Mux() *http.ServeMux { return s.mux }

// Handler is the whole HTTP side as one handler, the way the network sees it:
// for calls within the process and for tests.
//
// A request whose caller allows no more time (internal/wire.DeadlineHeader, or
// a context past its deadline) gets 504 before any handler runs. A body that
// announces more than Options.MaxBody gets 413; one that turns out larger
// fails the handler's Read with *http.MaxBytesError, and whatever error status
// the handler then answers becomes 413. A panic gets 500, or a cut connection
// when the answer had begun. A handler that writes nothing until its deadline
// has passed gets 504. All of these, and the 404 and 405 of the mux, are
// problems in the form of RFC 9457.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.route) }

func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         p,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/livez":
		s.livez(w, r)
	case "/readyz":
		s.readyz(w, r)
	case "/metrics":
		s.scrape.ServeHTTP(w, r)
	default:
		s.serve(w, r)
	}
}
