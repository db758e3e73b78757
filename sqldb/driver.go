package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Driver is the driver of one dialect. Its functions may be called concurrently; all are required
// unless it says otherwise.
type Driver struct {
	Dialect Dialect
	// Open opens the database at url with [OpenDB], and verifies it.
	Open func(ctx context.Context, url string) (*sql.DB, error)
	// Unique implements [Constraint] for errors of this dialect.
	Unique func(err error) (columns string, ok bool)
	// Retryable reports whether a transaction that failed with err can succeed later.
	Retryable func(err error) bool
	// Away implements [Away] for errors of this dialect; nil means always false.
	Away func(err error) bool
	// Notification waits for a notification on conn, a connection of the driver that listens, and
	// returns its payload. When ctx ends, conn stays usable. nil: the dialect has none.
	Notification func(ctx context.Context, conn any) (payload string, err error)
}

// A GroupConn is a connection of SQLite on which the writers of a process can share a commit. While
// a group is open its BeginTx makes a savepoint.
type GroupConn interface {
	driver.Conn
	// BeginGroup begins the transaction that the group shares, with the write lock.
	BeginGroup(ctx context.Context) error
	// EndGroup commits the group. It rolls back if commit is false or the commit fails.
	EndGroup(commit bool) error
	// Lost reports whether SQLite has rolled the group back by itself.
	Lost() bool
}

var registry struct {
	sync.RWMutex
	drivers map[string]*Driver // by URL scheme
}

// Register registers d for URL schemes. Call it only from init functions. It panics if a scheme is
// already registered.
func Register(d *Driver, schemes ...string) {
	registry.Lock()
	defer registry.Unlock()
	if registry.drivers == nil {
		registry.drivers = make(map[string]*Driver)
	}
	for _, scheme := range schemes {
		if registry.drivers[scheme] != nil {
			panic("sqldb: scheme " + scheme + " registered twice")
		}
		registry.drivers[scheme] = d
	}
}

// imports are the packages that register a scheme.
var imports = map[string]string{
	"sqlite":     "github.com/kaptar/kaptar/drivers/sqlite",
	"postgres":   "github.com/kaptar/kaptar/drivers/postgres",
	"postgresql": "github.com/kaptar/kaptar/drivers/postgres",
}

func driverFor(scheme string) (*Driver, error) {
	registry.RLock()
	defer registry.RUnlock()
	if d := registry.drivers[scheme]; d != nil {
		return d, nil
	}
	linked := strings.Join(slices.Sorted(maps.Keys(registry.drivers)), ", ")
	if path := imports[scheme]; path != "" {
		return nil, fmt.Errorf("sqldb: open %s: its driver is not linked (linked: %s): add import _ %q", scheme, cmp.Or(linked, "none"), path)
	}
	return nil, fmt.Errorf("sqldb: open: scheme %q: expected sqlite or postgres", scheme)
}

// OpenDB returns a database whose connections connect makes, for use with the functions of this
// package. It is for Driver.Open, which then sets the limits of the pool.
func OpenDB(d *Driver, connect func(ctx context.Context) (driver.Conn, error)) *sql.DB {
	own := &dbDriver{Driver: d, connect: connect, session: leaseSession{turn: make(chan struct{}, 1)}}
	if d.Dialect == SQLite {
		own.queue = &writeQueue{}
	}
	return sql.OpenDB(connector{own})
}

// dbDriver is what (*sql.DB).Driver returns for our databases. It holds one database's state.
type dbDriver struct {
	*Driver
	connect func(ctx context.Context) (driver.Conn, error)
	queue   *writeQueue            // SQLite only
	path    atomic.Pointer[string] // SQLite only: of the file, once it was asked for
	leases  sync.Map               // of bool by name: those that are held
	session leaseSession           // PostgreSQL only
	signals signals
}

func driverOf(db *sql.DB) *dbDriver {
	if db == nil {
		return nil
	}
	d, _ := db.Driver().(*dbDriver)
	return d
}

// Open implements driver.Driver. It ignores the name, because a dbDriver belongs to one database.
func (d *dbDriver) Open(string) (driver.Conn, error) { return d.connect(context.Background()) }

// connector opens connections of one database.
type connector struct{ driver *dbDriver }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) { return c.driver.connect(ctx) }
func (c connector) Driver() driver.Driver                            { return c.driver }

// Close is called by sql.DB.Close.
func (c connector) Close() error {
	c.driver.signals.close()
	return nil
}
