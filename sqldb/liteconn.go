package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"modernc.org/sqlite"
)

// errRolledBack says that SQLite ended the transaction by itself, as it does when a write is interrupted, the disk is
// full or a statement says OR ROLLBACK.
var errRolledBack = errors.New("sqldb: sqlite rolled the transaction back after an earlier error")

// liteDriverConn is what we use of the driver's connection.
type liteDriverConn interface {
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

// liteConn adds two things to a connection of the driver. Inside a group (see writeQueue) BeginTx makes a savepoint.
// And after SQLite has rolled back on its own, further statements of that transaction fail: unguarded they would run
// and commit one by one.
type liteConn struct {
	liteDriverConn
	grouped bool // a group's BEGIN IMMEDIATE is open
	inTx    bool // a transaction or savepoint handed out by BeginTx is open
	lost    bool // SQLite rolled back while it should be open
}

func newLiteConn(c driver.Conn) (*liteConn, error) {
	inner, ok := c.(liteDriverConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("sqldb: the SQLite driver's connection %T lacks methods that this package needs", c)
	}
	lc := &liteConn{liteDriverConn: inner}
	inner.RegisterRollbackHook(func() { lc.lost = lc.inTx || lc.grouped })
	return lc, nil
}

func (c *liteConn) exec(ctx context.Context, query string) error {
	_, err := c.liteDriverConn.ExecContext(ctx, query, nil)
	return err
}

// beginGroup opens the transaction that the savepoints of a group live in.
func (c *liteConn) beginGroup(ctx context.Context) error {
	if err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	c.grouped, c.lost = true, false
	return nil
}

// endGroup commits the group, or rolls it back when that fails.
func (c *liteConn) endGroup() error {
	lost := c.lost
	c.grouped, c.lost = false, false
	if lost {
		return errRolledBack
	}
	err := c.exec(context.Background(), "COMMIT")
	if err != nil {
		_ = c.exec(context.Background(), "ROLLBACK") // fails when the COMMIT has rolled back itself
	}
	return err
}

func (c *liteConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.grouped {
		if c.lost {
			return nil, errRolledBack
		}
		if err := c.exec(ctx, "SAVEPOINT kaptar"); err != nil {
			return nil, err
		}
		c.inTx = true
		return &savepoint{c}, nil
	}
	tx, err := c.liteDriverConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.inTx, c.lost = true, false
	return &liteTx{c: c, inner: tx}, nil
}

func (c *liteConn) usable() error {
	if c.lost {
		return errRolledBack
	}
	return nil
}

func (c *liteConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	return c.liteDriverConn.ExecContext(ctx, query, args)
}

func (c *liteConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	return c.liteDriverConn.QueryContext(ctx, query, args)
}

func (c *liteConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.liteDriverConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	inner, ok := s.(liteDriverStmt)
	if !ok {
		_ = s.Close()
		return nil, fmt.Errorf("sqldb: the SQLite driver's statement %T lacks methods that this package needs", s)
	}
	return &liteStmt{inner, c}, nil
}

// savepoint is one member's part of a group.
type savepoint struct{ c *liteConn }

func (s *savepoint) Commit() error {
	s.c.inTx = false
	if s.c.lost {
		return errRolledBack
	}
	return s.c.exec(context.Background(), "RELEASE kaptar")
}

func (s *savepoint) Rollback() error {
	s.c.inTx = false
	if s.c.lost {
		return nil // nothing is left of it
	}
	if err := s.c.exec(context.Background(), "ROLLBACK TO kaptar"); err != nil {
		return err
	}
	return s.c.exec(context.Background(), "RELEASE kaptar")
}

// liteTx is a transaction outside a group.
type liteTx struct {
	c     *liteConn
	inner driver.Tx
}

func (t *liteTx) Commit() error {
	lost := t.end()
	if lost {
		return errRolledBack
	}
	return t.inner.Commit()
}

func (t *liteTx) Rollback() error {
	if t.end() {
		return nil
	}
	return t.inner.Rollback()
}

func (t *liteTx) end() (lost bool) {
	lost = t.c.lost
	t.c.inTx, t.c.lost = false, false
	return lost
}

type liteDriverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// liteStmt keeps a prepared statement from running after its transaction is lost.
type liteStmt struct {
	liteDriverStmt
	c *liteConn
}

func (s *liteStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.usable(); err != nil {
		return nil, err
	}
	return s.liteDriverStmt.ExecContext(ctx, args)
}

func (s *liteStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.usable(); err != nil {
		return nil, err
	}
	return s.liteDriverStmt.QueryContext(ctx, args)
}
