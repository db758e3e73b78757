package kaptar

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// An App is a running service, seen from its own code. Run makes one for each Service. Its methods
// may be called concurrently. Those that register something (Handle, Use, Go, OnStop, AddReadiness,
// GRPC, Attach) may be called only during Setup, unless they say otherwise.
type App struct {
	service   Service
	id        string
	config    *config.Config
	settings  *Settings // a pointer, so that printing an App does not print its secrets
	telemetry *telemetry.Telemetry
	server    *server.Server
	transport *transport.Transport
	identity  *identity.Identity // nil without TLS
	client    *http.Client
	base      context.Context // ends when the services are told to stop
	backends  *drivers.Set
	offline   bool
	openDB    func(ctx context.Context, url string) (*sql.DB, error)

	mu       sync.Mutex
	db       *sql.DB
	tasks    []task
	stops    []stop
	attached map[any]any // to a func() (T, error)
}

// databaseInterval is how often a database is pinged, and how long it has to answer.
const databaseInterval = 2 * time.Second

// A task is a named piece of background work.
type task struct {
	name     string
	internal bool // the toolkit's own: the error of a late stop does not name it
	run      func(context.Context) error
}

// A stop is a named clean-up function.
type stop struct {
	name string
	run  func(context.Context) error
}

// Name returns the name of the service.
func (a *App) Name() string { return a.service.Name }

// Version returns the version of the service.
func (a *App) Version() string { return a.service.Version }

// Offline reports whether a Command opened the app (see Call.Apps). Nothing is served then, no task
// starts, and no registry, settings store or telemetry collector is contacted. A package that needs
// another server, such as a broker, does not connect to it by itself, so that a command can read
// the database while that server is away.
func (a *App) Offline() bool { return a.offline }

// Settings returns the toolkit's settings for this service, already validated.
func (a *App) Settings() *Settings { return a.settings }

// Context returns the context of the service itself. It ends when its tasks must stop, or when the
// program is told to stop during Setup. Setup should use it for everything that it opens over the
// network.
func (a *App) Context() context.Context { return a.base }

// Logger returns the service's logger. Records written with a context that carries a span carry its
// trace id.
func (a *App) Logger() *slog.Logger { return a.telemetry.Logger() }

// Tracer returns the service's tracer.
func (a *App) Tracer() trace.Tracer { return a.telemetry.Tracer() }

// Metrics returns the registry that the service's /metrics shows.
func (a *App) Metrics() prometheus.Registerer { return a.telemetry.Registry() }

// Handle registers h for pattern, which has the form of http.ServeMux: "GET /users/{id}".
func (a *App) Handle(pattern string, h http.Handler) { a.server.Handle(pattern, h) }

// HandleFunc registers h for pattern.
func (a *App) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	a.server.HandleFunc(pattern, h)
}

// ServeHTTP answers r as the HTTP port does. It makes App fit libraries that register on a router.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.server.Handler().ServeHTTP(w, r)
}

// Use wraps all routes of the service in middleware; the first one given is the outermost. The
// middleware sees every request except those for /livez, /readyz and /metrics. It also sees
// requests that match no route, such as preflight requests. Package server documents the order of
// the chain.
func (a *App) Use(mw ...func(http.Handler) http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opts := a.server.Options()
	opts.Middleware = append(opts.Middleware, mw...)
}

// UseGRPC does for RPCs what Use does for requests; either interceptor may be nil. They see every
// RPC except those of the health service.
func (a *App) UseGRPC(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opts := a.server.Options()
	if unary != nil {
		opts.Unary = append(opts.Unary, unary)
	}
	if stream != nil {
		opts.Stream = append(opts.Stream, stream)
	}
}

// Server returns the options with which the service is served: limits, TLS, addresses. What Setup
// changes there overrides the settings.
func (a *App) Server() *server.Options { return a.server.Options() }

// GRPC is where the service registers its gRPC services. The gRPC port is bound only when something
// is registered.
func (a *App) GRPC() grpc.ServiceRegistrar { return a.server.GRPC() }

// Transport returns the options of calls to other services that have no setting: middleware for
// Client and Conn, TLS, a base transport, weights. They may be changed during Setup, before the
// first call, and apply to a client that was returned earlier too.
func (a *App) Transport() *transport.Options { return a.transport.Options() }

// Client returns the client for all other services: http://order-service/… is looked up in
// discovery, balanced over its instances, retried when that is safe, refused by a circuit breaker
// while the target keeps failing, bounded by the caller's deadline, and traced. A host that
// discovery does not know is called by DNS name in the same way. Calls made during Setup fail,
// because nothing is served yet.
func (a *App) Client() *http.Client { return a.client }

// Conn returns a gRPC connection to the service of that name, which does for RPCs what Client does
// for HTTP. Both share one breaker and one set of instances per target. It is cheap and need not be
// closed.
func (a *App) Conn(service string) grpc.ClientConnInterface { return a.transport.Conn(service) }

// EventShare tells which events this version of the service handles while a release gives it only a
// share of them (see package rollout). Package messaging asks it for every event.
func (a *App) EventShare() *transport.EventShare {
	return a.transport.EventShare(a.Name(), a.Version())
}

// DB returns the service's database, opened from the setting database_url at the first call and
// closed after the service has stopped. A database belongs to one service. One that belongs to
// another service, or that already has tables of unknown origin, is refused unless the setting
// database_from allows it (see sqldb.Own). If migrations is not nil the database is migrated first:
// the directory holds sqlite/*.sql and postgres/*.sql for the dialects that the service supports
// (see sqldb.Migrate). The database gets a readiness check.
func (a *App) DB(migrations fs.FS) (*sql.DB, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db == nil {
		url := a.settings.DatabaseURL.Reveal()
		if url == "" {
			return nil, fmt.Errorf("kaptar: %s needs a database: set DATABASE_URL (or services.%[1]s.database_url) to sqlite:path or postgres://…", a.Name())
		}
		if tlsfiles.Exposed(url) {
			a.Logger().Warn("the database is on another machine, and its URL does not ask for TLS that looks who answers: "+
				"add sslmode=verify-full", "setting", "database_url")
		}
		db, err := a.openDB(a.base, url)
		if err != nil {
			return nil, fmt.Errorf("kaptar: database of %s: %w", a.Name(), err)
		}
		if err := sqldb.Own(a.base, db, a.Name(), a.settings.DatabaseFrom); err != nil {
			return nil, errors.Join(a.ownDatabase(err), db.Close())
		}
		a.db = db
		a.server.AddReadiness("database", db.PingContext)
		a.stops = append(a.stops, stop{"database", func(context.Context) error { return db.Close() }})
		if sqldb.DialectOf(db) != sqldb.SQLite { // a file does not go away
			a.tasks = append(a.tasks, task{"database watch", true, func(ctx context.Context) error {
				outage := steady.Outage{What: "database", Log: a.Logger(), Attrs: []slog.Attr{slog.String("setting", "database_url")}}
				outage.Watch(ctx, databaseInterval, db.PingContext)
				return nil
			}})
		}
	}
	if migrations != nil {
		if err := sqldb.Migrate(a.base, a.db, migrations, ""); err != nil {
			return nil, fmt.Errorf("kaptar: database of %s: %w", a.Name(), err)
		}
	}
	return a.db, nil
}

// ownDatabase adds to err what to do about a database that belongs to another service.
func (a *App) ownDatabase(err error) error {
	err = fmt.Errorf("kaptar: database of %s: %w", a.Name(), err)
	if !errors.Is(err, sqldb.ErrOwned) {
		return err
	}
	variable := config.EnvName(a.Name()) + "_DATABASE_URL"
	return fmt.Errorf("%w; nothing was changed. Give each service a database of its own: set %s or services.%[3]s.database_url. "+
		"If this one is meant, as after a new name, start once with --set services.%[3]s.database_from=OWNER, or =%[4]s where no owner is recorded; "+
		"if tables got there by mistake, drop the database and create it anew instead", err, variable, a.Name(), sqldb.Unowned)
}

// Backend returns a connection to the server at a URL such as nats://host:4222, opened by one of
// the drivers that the program imports. It is opened once for all services of a Run, and closed
// after the last one has stopped. What it can do is in optional methods, see package drivers. For a
// scheme without a driver the error names the package to import. Backend may be called at any time.
func (a *App) Backend(ctx context.Context, url string) (drivers.Backend, error) {
	return a.backends.Open(ctx, url)
}

// AddReadiness adds a check to /readyz. It is called for each request to /readyz, with a deadline
// of one second. An error makes the service not ready and is shown as the reason.
func (a *App) AddReadiness(name string, check func(context.Context) error) {
	a.server.AddReadiness(name, check)
}

// Go registers background work. It starts once the ports are served. Its context ends when the
// service stops: after requests in flight have finished, or at once when a task or server has
// failed. It should then return nil soon. If run returns an error or panics before that, the
// program stops with that error. Returning nil early is fine.
func (a *App) Go(name string, run func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tasks = append(a.tasks, task{name: name, run: run})
}

// OnStop registers a clean-up function. These run after the tasks have ended, the last registered
// first, within what is left of the shutdown timeout.
func (a *App) OnStop(name string, run func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stops = append(a.stops, stop{name, run})
}

// errAttachType means that two callers of Attach use the same key for different types.
var errAttachType = errors.New("kaptar: key attached with another type")

// Attach returns the value that app keeps under key. The first call makes it with open; an error of
// open is kept too. Packages that build on this one use it to keep one connection per service
// without a global variable. key should be of an unexported type, as with context.WithValue. open
// may call app's methods but must not call Attach with the same key.
func Attach[T any](app *App, key any, open func() (T, error)) (value T, err error) {
	app.mu.Lock()
	at, ok := app.attached[key]
	if !ok {
		at = sync.OnceValues(open)
		app.attached[key] = at
	}
	app.mu.Unlock()
	get, ok := at.(func() (T, error))
	if !ok {
		return value, fmt.Errorf("%w: %T", errAttachType, key)
	}
	return get()
}
