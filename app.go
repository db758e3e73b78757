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

// An App is one running service as its own code sees it. Run makes one for each Service. Its methods
// may be called concurrently; those that register something (Handle, Use, UseClient, Go, OnStop,
// AddReadiness, GRPC, Attach) may be called during Setup only, unless they say otherwise.
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

// databaseInterval is how often a database is asked whether it is there, and how long it has to
// answer.
const databaseInterval = 2 * time.Second

// A task is a named piece of background work.
type task struct {
	name     string
	internal bool // the toolkit's own: the error of a late stop does not name it
	run      func(context.Context) error
}

// A stop is a named piece of cleaning up.
type stop struct {
	name string
	run  func(context.Context) error
}

// Name returns the name of the service.
func (a *App) Name() string { return a.service.Name }

// Version returns the version of the service.
func (a *App) Version() string { return a.service.Version }

// Offline reports whether a Command opened the app (see Call.Apps): nothing is served, no task starts,
// and no registry, store of settings or collector is asked. Packages whose work needs a server that may
// be away then connect to none by themselves, so that what the database has can be seen without it.
func (a *App) Offline() bool { return a.offline }

// Settings returns the toolkit's settings of this service, already checked.
func (a *App) Settings() *Settings { return a.settings }

// Context returns the context of the service's own: it ends when its tasks are to stop, or when the
// program is told to stop during Setup. Whatever Setup opens over the network should be bound by
// it.
func (a *App) Context() context.Context { return a.base }

// Logger returns the service's logger. Records written with a context that carries a span carry its
// trace id.
func (a *App) Logger() *slog.Logger { return a.telemetry.Logger() }

// Tracer returns the service's tracer.
func (a *App) Tracer() trace.Tracer { return a.telemetry.Tracer() }

// Metrics returns the registry behind the service's /metrics.
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

// Use puts middleware around all routes of the service at once; the first that is given is the
// outermost. It sees every request but those for /livez, /readyz and /metrics,
// also one without a route, such as a preflight request. Package server has the order of the chain.
func (a *App) Use(mw ...func(http.Handler) http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opts := a.server.Options()
	opts.Middleware = append(opts.Middleware, mw...)
}

// UseGRPC does for RPCs what Use does for requests; either interceptor may be nil. They see every
// RPC but those of the health service.
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

// Server returns how the service is served: its limits, TLS, addresses. What Setup changes there
// holds, whatever the settings say.
func (a *App) Server() *server.Options { return a.server.Options() }

// GRPC is where the service registers its gRPC services. The gRPC port is bound only when something
// is registered.
func (a *App) GRPC() grpc.ServiceRegistrar { return a.server.GRPC() }

// UseClient puts mw around all calls of Client, also of those that were handed out before; the
// first of all is the outermost. It sees a call once, outside of retries and breaker: the host of
// its request is the name of the service.
func (a *App) UseClient(mw ...func(http.RoundTripper) http.RoundTripper) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.transport.Options()
	o.Client = append(o.Client, mw...)
}

// UseConn does for the calls of Conn what UseClient does for HTTP; either may be nil. Their
// *grpc.ClientConn is nil, because a service is not one connection.
func (a *App) UseConn(unary grpc.UnaryClientInterceptor, stream grpc.StreamClientInterceptor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.transport.Options()
	if unary != nil {
		o.Unary = append(o.Unary, unary)
	}
	if stream != nil {
		o.Stream = append(o.Stream, stream)
	}
}

// Transport are the options of calls to other services, for what no setting says: TLS, a base
// transport, weights. They may be changed during Setup, before the first call.
func (a *App) Transport() *transport.Options { return a.transport.Options() }

// Client returns the client for all other services: http://order-service/… is found through
// discovery, balanced, retried when that is safe, broken off when the target keeps failing, bound
// by the caller's deadline and traced. A name that discovery does not know is an ordinary host, with
// the same care. Calls made during Setup fail, as nothing serves yet.
func (a *App) Client() *http.Client { return a.client }

// Conn returns a gRPC connection to the service of that name, with what Client does for HTTP; both
// share one breaker and one set of instances per target. It is cheap and needs no closing.
func (a *App) Conn(service string) grpc.ClientConnInterface { return a.transport.Conn(service) }

// EventShare says which events the service's subscriptions handle, while the weights in the store give
// a release its share. It is for package messaging, which asks again and again.
func (a *App) EventShare() *transport.EventShare {
	return a.transport.EventShare(a.Name(), a.Version())
}

// DB returns the service's database, opened from the setting database_url at the first call and
// closed after the service has stopped. A database belongs to one service: one that is another's,
// or that has tables already, is refused, unless database_from says otherwise (see sqldb.Own). With
// migrations other than nil it is migrated first: the directory holds sqlite/*.sql and
// postgres/*.sql for the dialects that the service supports (see sqldb.Migrate). A readiness check
// for the database comes with it.
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

// ownDatabase says what to do about a database that is not the service's.
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

// Backend returns the server behind a URL such as nats://host:4222, as the drivers that the
// program imports open it: once for all services of a Run, and closed after the last one has
// stopped. What it can do it offers as optional methods, see package drivers. The error for a
// scheme without a driver names the package to import. It may be called at any time.
func (a *App) Backend(ctx context.Context, url string) (drivers.Backend, error) {
	return a.backends.Open(ctx, url)
}

// AddReadiness adds a check to /readyz. It is called with a deadline of a second each time somebody
// asks; an error makes the service not ready and names why.
func (a *App) AddReadiness(name string, check func(context.Context) error) {
	a.server.AddReadiness(name, check)
}

// Go registers background work. It starts once the ports are served, and its context ends when the
// service is to stop, after requests in flight are done; it should then return nil soon. If it
// returns an error, or panics, before that, the program stops with that error. Returning nil early
// is fine.
func (a *App) Go(name string, run func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tasks = append(a.tasks, task{name: name, run: run})
}

// OnStop registers cleaning up that runs after all tasks have ended, the last registered first,
// within what is left of the shutdown's time.
func (a *App) OnStop(name string, run func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stops = append(a.stops, stop{name, run})
}

// errAttachType tells that two callers of Attach use one key for different things.
var errAttachType = errors.New("kaptar: key attached with another type")

// Attach returns the one value of its kind that belongs to app, made by open at the first call. It
// is how packages above this one keep a connection per service without a global variable; key
// should be of an unexported type, as with context.WithValue. open may call app's methods and must
// not call Attach with the same key.
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
