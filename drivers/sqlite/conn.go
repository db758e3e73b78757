package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"modernc.org/sqlite"

	"github.com/kaptar/kaptar/sqldb"
)

// errRolledBack says that SQLite ended the transaction by itself, as it does when a write is
// interrupted, the disk is full or a statement says OR ROLLBACK.
var errRolledBack = errors.New("sqldb: sqlite rolled the transaction back after an earlier error")

// innerConn is the part of the driver's connection that we use.
type innerConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	sqlite.HookRegisterer
}

// conn is a [sqldb.GroupConn]. It adds three things to a connection of the driver. Statements stay
// prepared. Inside a group, BeginTx makes a savepoint. And after SQLite has rolled back on its own,
// further statements of that transaction fail; otherwise they would run and commit one by one.
type conn struct {
	innerConn
	cache   map[string]innerStmt // prepared, by their text
	grouped bool                 // a group's BEGIN IMMEDIATE is open
	inTx    bool                 // a transaction or savepoint handed out by BeginTx is open
	lost    bool                 // SQLite rolled back while it should be open
}

var _ sqldb.GroupConn = (*conn)(nil)

func newConn(c driver.Conn) (*conn, error) {
	inner, ok := c.(innerConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("sqldb: the SQLite driver's connection %T lacks methods that this package needs", c)
	}
	own := &conn{innerConn: inner, cache: make(map[string]innerStmt)}
	inner.RegisterRollbackHook(func() { own.lost = own.inTx || own.grouped })
	return own, nil
}

func (c *conn) exec(ctx context.Context, query string) error {
	_, err := c.execCached(ctx, query, nil)
	return err
}

func (c *conn) BeginGroup(ctx context.Context) error {
	if err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		// If ctx ends at that moment, the driver returns its error although the BEGIN has run.
		_ = c.exec(context.Background(), "ROLLBACK") // fails when there is no transaction, as a rule
		return err
	}
	c.grouped, c.lost = true, false
	return nil
}

func (c *conn) EndGroup(commit bool) error {
	lost := c.lost
	c.grouped, c.lost = false, false
	switch {
	case lost && !commit:
		return nil // nothing is left of it
	case lost:
		return errRolledBack
	case !commit:
		return c.exec(context.Background(), "ROLLBACK")
	}
	err := c.exec(context.Background(), "COMMIT")
	if err != nil {
		_ = c.exec(context.Background(), "ROLLBACK") // fails when the COMMIT has rolled back itself
	}
	return err
}

func (c *conn) Lost() bool { return c.lost }

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.grouped {
		if c.lost {
			return nil, errRolledBack
		}
		if err := c.exec(ctx, "SAVEPOINT kaptar"); err != nil {
			return nil, err
		}
		c.inTx = true
		return tx{c, savepoint{c}}, nil
	}
	inner, err := c.innerConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.inTx, c.lost = true, false
	return tx{c, inner}, nil
}

func (c *conn) usable() error {
	if c.lost {
		return errRolledBack
	}
	return nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	return c.execCached(ctx, query, args)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	return c.innerConn.QueryContext(ctx, query, args)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	inner, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{inner, c}, nil
}

func (c *conn) prepare(ctx context.Context, query string) (innerStmt, error) {
	s, err := c.innerConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	inner, ok := s.(innerStmt)
	if !ok {
		_ = s.Close()
		return nil, fmt.Errorf("sqldb: the SQLite driver's statement %T lacks methods that this package needs", s)
	}
	return inner, nil
}

// tx is a transaction, or a savepoint in a group. SQLite may have ended it already.
type tx struct {
	c     *conn
	inner driver.Tx
}

func (t tx) Commit() error {
	if t.end() {
		return errRolledBack
	}
	return t.inner.Commit()
}

func (t tx) Rollback() error {
	if t.end() {
		return nil
	}
	return t.inner.Rollback()
}

func (t tx) end() (lost bool) {
	lost = t.c.lost
	t.c.inTx, t.c.lost = false, lost && t.c.grouped // the others of a group have lost theirs too
	return lost
}

// savepoint is one member's part of a group.
type savepoint struct{ c *conn }

func (s savepoint) Commit() error { return s.c.exec(context.Background(), "RELEASE kaptar") }
func (s savepoint) Rollback() error {
	return s.c.exec(context.Background(), "ROLLBACK TO kaptar; RELEASE kaptar")
}

type innerStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// stmt keeps a prepared statement from running after its transaction is lost.
type stmt struct {
	innerStmt
	c *conn
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.usable(); err != nil {
		return nil, err
	}
	return s.innerStmt.ExecContext(ctx, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.usable(); err != nil {
		return nil, err
	}
	return s.innerStmt.QueryContext(ctx, args)
}
