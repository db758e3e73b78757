package postgres

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

type pgxConn = stdlib.Conn // embedded, it must not hide the method Conn

// A conn sends the BEGIN of a transaction together with its first statement, if that has arguments
// and returns no rows: most transactions have a round trip less.
type conn struct {
	*pgxConn
	lazy context.Context // of a transaction that has not begun at the server; nil: there is none
}

func connect(ctx context.Context, connector driver.Connector) (driver.Conn, error) {
	c, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{pgxConn: c.(*stdlib.Conn)}, nil //nolint:forcetypeassert // as its GetConnector says
}

// BeginTx implements [driver.ConnBeginTx].
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts != (driver.TxOptions{}) || c.pgxConn.Conn().IsClosed() {
		return c.pgxConn.BeginTx(ctx, opts)
	}
	c.lazy = ctx
	return &tx{c, ctx}, nil
}

// begin begins a transaction that has not begun.
func (c *conn) begin() error {
	if c.lazy == nil {
		return nil
	}
	_, err := c.pgxConn.Conn().Exec(c.lazy, "begin")
	if err == nil {
		c.lazy = nil
	}
	return err
}

// Conn returns the connection of pgx. A transaction on it has begun.
func (c *conn) Conn() *pgx.Conn {
	_ = c.begin() // the connection is closed then
	return c.pgxConn.Conn()
}

// ExecContext implements [driver.ExecerContext].
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) == 0 { // may be several statements, which no batch takes
		if err := c.begin(); err != nil {
			return nil, err
		}
	}
	if c.lazy == nil {
		return c.pgxConn.ExecContext(ctx, query, args)
	}
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i].Value
	}
	var batch pgx.Batch
	batch.Queue("begin")
	batch.Queue(query, values...)
	pg := c.pgxConn.Conn()
	results := pg.SendBatch(ctx, &batch)
	_, err := results.Exec()
	var tag pgconn.CommandTag
	if err == nil {
		tag, err = results.Exec()
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if pg.PgConn().TxStatus() == 'I' && !pg.IsClosed() { // not begun, as when query cannot be prepared
		if err := c.begin(); err != nil {
			return nil, err
		}
		return c.pgxConn.ExecContext(ctx, query, args) // for the error to be the transaction's
	}
	c.lazy = nil
	return driver.RowsAffected(tag.RowsAffected()), err
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	return c.pgxConn.QueryContext(ctx, query, args)
}

// PrepareContext implements [driver.ConnPrepareContext].
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	s, err := c.pgxConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{s.(*stdlib.Stmt), c, query}, nil //nolint:forcetypeassert // pgx makes no other
}

// A stmt is a prepared statement, which may be older than the transaction that it is used in.
type stmt struct {
	*stdlib.Stmt
	c     *conn
	query string
}

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.query, args)
}

// A tx is a transaction of a conn.
type tx struct {
	c   *conn
	ctx context.Context
}

// Commit implements [driver.Tx].
func (t *tx) Commit() error {
	tag, err := t.end("commit")
	if err == nil && tag.String() == "ROLLBACK" { // a statement had failed
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback implements [driver.Tx].
func (t *tx) Rollback() error {
	_, err := t.end("rollback")
	return err
}

// end executes what ends the transaction, if it has begun. If that fails, nobody knows in what state
// the connection is, so it is closed.
func (t *tx) end(query string) (tag pgconn.CommandTag, err error) {
	if t.c.lazy != nil {
		t.c.lazy = nil
		return tag, nil
	}
	pg := t.c.pgxConn.Conn()
	tag, err = pg.Exec(t.ctx, query)
	if err != nil && pg.PgConn().TxStatus() != 'I' {
		err = errors.Join(err, pg.Close(t.ctx))
	}
	return tag, err
}
