package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
)

// Lease is leadership under a name: at most one holder at a time. Its methods may be called
// concurrently.
type Lease struct {
	driver *dbDriver
	db     *sql.DB
	name   string
	conn   *sql.Conn // PostgreSQL: the session that holds the lock
	file   *os.File  // SQLite: what holds it; nil in memory

	mu       sync.Mutex
	released bool
}

// TryLease takes the lease called name, or returns nil when another holds it.
//
// On PostgreSQL it is a session advisory lock on a connection taken out of the pool: it spans all
// processes on the database and ends with the session, so a dead process holds nothing. A
// transaction pooler in between breaks it. On SQLite it is the lock (flock) of a file beside the
// database's, with the name of the lease in its own: it spans the processes of one machine, ends with
// the process, and the file stays. Of a database in memory, and where there is no flock, it spans the
// users of db.
func TryLease(ctx context.Context, db *sql.DB, name string) (*Lease, error) {
	d := driverOf(db)
	if d == nil {
		return nil, errors.New("sqldb: TryLease: the database was not opened by sqldb.Open")
	}
	if d.Dialect == SQLite {
		return trySQLite(ctx, d, db, name)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("sqldb: lease %s: %w", name, err)
	}
	var ok bool
	err = conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock("+leaseKey+")", name).Scan(&ok)
	if err != nil {
		discard(conn) // the lock may have been granted to it
		return nil, fmt.Errorf("sqldb: lease %s: %w", name, err)
	}
	if !ok {
		_ = conn.Close()
		return nil, nil
	}
	return &Lease{driver: d, db: db, name: name, conn: conn}, nil
}

func trySQLite(ctx context.Context, d *dbDriver, db *sql.DB, name string) (*Lease, error) {
	if _, held := d.leases.LoadOrStore(name, true); held {
		return nil, nil
	}
	var path string // "" in memory
	err := db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&path)
	var file *os.File
	if err == nil && path != "" {
		file, err = lockFile(path + "-lease-" + url.PathEscape(name))
	}
	if err != nil || path != "" && file == nil {
		d.leases.Delete(name)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("sqldb: lease %s: %w", name, err)
	case path != "" && file == nil:
		return nil, nil
	}
	return &Lease{driver: d, db: db, name: name, file: file}, nil
}

// Check asks the database whether the lease is still held; nil means yes. On SQLite it is until
// Release.
func (l *Lease) Check(ctx context.Context) error {
	if err := l.ended(); err != nil || l.conn == nil {
		return err
	}
	var held bool
	err := l.conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
		AND objsubid = 1 AND granted AND classid::bigint << 32 | objid::bigint = `+leaseKey+`)`, l.name).Scan(&held)
	if err == nil && !held {
		err = errors.New("the session no longer holds the lock; is there a transaction pooler in between?")
	}
	if err != nil {
		return fmt.Errorf("sqldb: lease %s: %w", l.name, err)
	}
	return nil
}

// QueryContext runs a query, on PostgreSQL over the session that holds the lease: when it returns no
// error, nobody else had the lease then, at no extra round trip. The session waits until the rows
// are closed.
func (l *Lease) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := l.ended(); err != nil {
		return nil, err
	}
	if l.conn == nil {
		return l.db.QueryContext(ctx, query, args...)
	}
	return l.conn.QueryContext(ctx, query, args...)
}

func (l *Lease) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return fmt.Errorf("sqldb: lease %s: released", l.name)
	}
	return nil
}

// Release gives the lease up. Releasing twice is fine.
func (l *Lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	if l.conn == nil {
		if l.file != nil {
			_ = l.file.Close() // which gives its lock up
		}
		l.driver.leases.Delete(l.name)
		return
	}
	discard(l.conn) // ends the session, and the lock with it, also when the connection is half broken
}

// leaseKey is a lock number for the name $1 in the current schema, since services may share a
// database. It spreads over 64 bits: the space is shared with the user's own locks.
const leaseKey = `('x' || left(md5('kaptar lease:' || $1::text || ':' || coalesce(current_schema(), '')), 16))::bit(64)::bigint`

// discard closes the session behind conn instead of handing it back to the pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}
