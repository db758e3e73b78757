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
	"time"
)

// A Lease makes its holder the leader for a name: there is at most one holder at a time. Its
// methods may be called concurrently.
type Lease struct {
	driver *dbDriver
	db     *sql.DB
	name   string
	conn   *sql.Conn // PostgreSQL: the session that holds the lock
	file   *os.File  // SQLite: what holds it; nil in memory

	mu       sync.Mutex
	released bool
}

// sessionTimeout bounds what is done on the session of the leases.
const sessionTimeout = 5 * time.Second

var errSessionLost = errors.New("the session that held it is lost")

// TryLease takes the lease called name. It returns nil, without an error, if it is held already.
//
// On PostgreSQL it is a session advisory lock. It covers all processes on the database and ends
// with the session, so a dead process holds nothing. All leases of one db share one session, on a
// connection that is taken from the pool while at least one is held. It does not work through a
// transaction pooler. On SQLite it is the lock (flock) of a file next to the database, with the
// name of the lease in its own name. It covers the processes of one machine and ends with the
// process; the file remains. For a database in memory, and on systems without flock, it covers only
// the users of this db.
func TryLease(ctx context.Context, db *sql.DB, name string) (*Lease, error) {
	d := driverOf(db)
	if d == nil {
		return nil, errors.New("sqldb: TryLease: the database was not opened by sqldb.Open")
	}
	if _, held := d.leases.LoadOrStore(name, true); held {
		return nil, nil
	}
	l := &Lease{driver: d, db: db, name: name}
	try := l.tryPostgres
	if d.Dialect == SQLite {
		try = l.trySQLite
	}
	ok, err := try(ctx)
	if err != nil || !ok {
		d.leases.Delete(name)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("sqldb: lease %s: %w", name, err)
	case !ok:
		return nil, nil
	}
	return l, nil
}

func (l *Lease) tryPostgres(ctx context.Context) (ok bool, err error) {
	err = l.driver.session.use(ctx, func(ctx context.Context, s *leaseSession) error {
		if s.conn == nil {
			if s.conn, err = l.db.Conn(ctx); err != nil {
				return err
			}
		}
		if err := s.conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock("+leaseKey+")", l.name).Scan(&ok); err != nil {
			s.discard() // the lock may have been granted to it
			return err
		}
		if ok {
			l.conn = s.conn
			s.held++
		}
		return nil
	})
	return ok, err
}

func (l *Lease) trySQLite(ctx context.Context) (ok bool, err error) {
	path := l.driver.path.Load()
	if path == nil {
		path = new(string)
		if err := l.db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(path); err != nil {
			return false, err
		}
		l.driver.path.Store(path)
	}
	if *path == "" { // in memory
		return true, nil
	}
	l.file, err = lockFile(*path + "-lease-" + url.PathEscape(l.name))
	return l.file != nil, err
}

// Check asks the database whether the lease is still held, and returns nil if so. On SQLite it is
// held until Release.
func (l *Lease) Check(ctx context.Context) error {
	if l.conn == nil {
		return l.ended()
	}
	var held bool
	err := l.Use(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
			AND objsubid = 1 AND granted AND classid::bigint << 32 | objid::bigint = `+leaseKey+`)`, l.name).Scan(&held)
	})
	if err == nil && !held {
		err = fmt.Errorf("sqldb: lease %s: the session no longer holds the lock; is there a transaction pooler in between?", l.name)
	}
	return err
}

// Use calls f, which must be short, with a connection. On PostgreSQL that is the session that holds
// the lease: if a query on it succeeds, the lease was held at that time, without an extra round
// trip. Calls for the leases of one db run one after another. The ctx of f ends after 5 seconds but
// not with the caller's ctx, because an interrupted query ends the session.
func (l *Lease) Use(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) error {
	if err := l.ended(); err != nil {
		return err
	}
	if l.conn == nil {
		conn, err := l.db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("sqldb: lease %s: %w", l.name, err)
		}
		defer conn.Close()
		return f(ctx, conn)
	}
	err := l.driver.session.use(ctx, func(ctx context.Context, s *leaseSession) error {
		if s.conn != l.conn {
			return errSessionLost
		}
		return f(ctx, l.conn)
	})
	if err != nil {
		return fmt.Errorf("sqldb: lease %s: %w", l.name, err)
	}
	return nil
}

func (l *Lease) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return fmt.Errorf("sqldb: lease %s: released", l.name)
	}
	return nil
}

// Release gives the lease up. Further calls do nothing.
func (l *Lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	defer l.driver.leases.Delete(l.name)
	if l.file != nil {
		unlockFile(l.file)
	}
	if l.conn == nil {
		return
	}
	_ = l.driver.session.use(context.Background(), func(ctx context.Context, s *leaseSession) error {
		if s.conn != l.conn {
			return nil
		}
		s.held--
		if s.held > 0 {
			if _, err := s.conn.ExecContext(ctx, "SELECT pg_advisory_unlock("+leaseKey+")", l.name); err == nil {
				return nil
			}
		}
		s.discard() // ends the session, and the lock with it, also when the connection is half broken
		return nil
	})
}

// A leaseSession is the connection that holds all leases of one database.
type leaseSession struct {
	turn chan struct{} // full while somebody uses the rest
	conn *sql.Conn     // nil for none
	held int           // leases on it
}

// use runs f alone, with a ctx that ends after sessionTimeout.
func (s *leaseSession) use(ctx context.Context, f func(context.Context, *leaseSession) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if s.conn != nil && s.held == 0 {
			_ = s.conn.Close() // back to the pool
			s.conn = nil
		}
		<-s.turn
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sessionTimeout)
	defer cancel()
	return f(ctx, s)
}

func (s *leaseSession) discard() {
	discard(s.conn)
	s.conn, s.held = nil, 0
}

// leaseKey is a lock number for the name $1 in the current schema, since services may share a
// database. It spreads over 64 bits: the space is shared with the user's own locks.
const leaseKey = `('x' || left(md5('kaptar lease:' || $1::text || ':' || coalesce(current_schema(), '')), 16))::bit(64)::bigint`

// discard closes the session behind conn instead of handing it back to the pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}
