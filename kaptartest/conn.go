package kaptartest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/kaptar/kaptar/sqldb"
)

// openDB opens the service's database with faults.
func (in *instance) openDB(ctx context.Context, _ string) (*sql.DB, error) {
	st, err := in.sim.store(in.name)
	if err != nil {
		return nil, err
	}
	dialect := &sqldb.Driver{Dialect: sqldb.SQLite, Retryable: busy}
	db := sqldb.OpenDB(dialect, func(context.Context) (driver.Conn, error) { return in.connect(st) })
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return db, db.PingContext(ctx)
}

// busy reports whether err is SQLITE_BUSY or SQLITE_LOCKED.
func busy(err error) bool {
	var coded interface{ Code() int }
	return errors.As(err, &coded) && (coded.Code()&0xff == 5 || coded.Code()&0xff == 6)
}

func (in *instance) connect(st *store) (driver.Conn, error) {
	inner, err := st.take()
	if err != nil {
		return nil, err
	}
	c := &conn{session: inner, in: in, store: st, turn: make(chan struct{}, 1)}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.alive() {
		st.give(inner)
		return nil, errKilled
	}
	in.conns[c] = true
	return c, nil
}

// A conn is a connection of an instance. What waits in it waits for a channel, since time does not
// pass in a bubble while somebody waits for a mutex.
type conn struct {
	*session

	in    *instance
	store *store
	turn  chan struct{} // full during a call

	// These change with the turn.
	writes bool // store.writing is ours
	group  bool
	tx     driver.Tx // that is open
	gone   bool      // abandoned
	last   string    // statement of the transaction
}

// call makes a call that changes what others may see, if the instance is alive; write says that the
// call writes. A crash can strike before and after it.
func (c *conn) call(ctx context.Context, text string, write bool, do func(ctx context.Context) error) error {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.gone {
		return errKilled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if text != "" {
		if err := c.in.at("before " + text); err != nil {
			return err
		}
	}
	if write && !c.writes {
		select {
		case c.store.writing <- struct{}{}:
			c.writes = true
		case <-c.in.dead:
			return errKilled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := do(context.WithoutCancel(ctx))
	c.free()
	if text == "" || err != nil {
		return err
	}
	return c.in.at("after " + text)
}

// free lets others write, unless a transaction is open.
func (c *conn) free() {
	if c.writes && !c.group && c.tx == nil {
		c.writes = false
		<-c.store.writing
	}
}

// abandon closes the connection as the end of a process would.
func (c *conn) abandon() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.gone {
		return
	}
	c.gone = true
	var err1, err2 error
	if c.tx != nil {
		err1 = c.tx.Rollback()
	}
	if c.group {
		err2 = c.lite.EndGroup(false)
	}
	if err1 != nil || err2 != nil || c.lite.Lost() {
		c.session.close()
	} else {
		c.store.give(c.session)
	}
	c.group, c.tx = false, nil
	c.free()
}

// Close closes the connection, unless that has happened.
func (c *conn) Close() error {
	c.in.mu.Lock()
	delete(c.in.conns, c)
	c.in.mu.Unlock()
	c.abandon()
	return nil
}

// Lost waits until the connection is abandoned, if that is under way.
func (c *conn) Lost() bool {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return c.gone || c.lite.Lost()
}

func (c *conn) BeginGroup(ctx context.Context) error {
	return c.call(ctx, "", true, func(ctx context.Context) error {
		err := c.lite.BeginGroup(ctx)
		c.group = err == nil
		return err
	})
}

func (c *conn) EndGroup(commit bool) error {
	text := ""
	if commit {
		text = c.commitOf()
	}
	return c.call(context.Background(), text, false, func(context.Context) error {
		c.group = false
		return c.lite.EndGroup(commit)
	})
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	var out tx
	err := c.call(ctx, "", !opts.ReadOnly, func(ctx context.Context) error {
		inner, err := c.lite.BeginTx(ctx, opts)
		if err == nil {
			c.tx, out = inner, tx{inner, c}
		}
		return err
	})
	return &out, err
}

// A tx is a transaction, or a savepoint of a group.
type tx struct {
	driver.Tx

	c *conn
}

func (t *tx) Commit() error {
	text := ""
	if !t.c.group { // else others may still join it
		text = t.c.commitOf()
	}
	return t.end(text, t.Tx.Commit)
}
func (t *tx) Rollback() error { return t.end("", t.Tx.Rollback) }

func (t *tx) end(text string, how func() error) error {
	return t.c.call(context.Background(), text, false, func(context.Context) error {
		t.c.tx = nil
		return how()
	})
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.call(ctx, c.statement(query, args), !reads(query), func(ctx context.Context) error {
		st, err := c.prepare(ctx, query)
		if err != nil {
			return err
		}
		result, err = st.ExecContext(ctx, args)
		return err
	})
	return result, err
}

// QueryContext reads all rows at once, so that none is open when the connection is abandoned.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	out := new(rows)
	err := c.call(ctx, c.statement(query, args), !reads(query), func(ctx context.Context) error {
		st, err := c.prepare(ctx, query)
		if err != nil {
			return err
		}
		inner, err := st.QueryContext(ctx, args)
		if err != nil {
			return err
		}
		defer inner.Close()
		return out.read(inner)
	})
	return out, err
}

func (c *conn) Ping(ctx context.Context) error {
	return c.call(ctx, "", false, func(context.Context) error { return nil })
}

// Prepare and PrepareContext prepare nothing.
func (c *conn) Prepare(query string) (driver.Stmt, error) { return &stmt{c, query}, nil }
func (c *conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return &stmt{c, query}, nil
}

// statement names a statement by what is the same in every run of a seed. It returns "" for those
// at which no crash is needed.
func (c *conn) statement(query string, args []driver.NamedValue) string {
	if reads(query) && !c.group && c.tx == nil {
		return "" // reading changes nothing, and the number of reads depends on who polls
	}
	text := strings.Join(strings.Fields(query), " ")
	text = text[:min(len(text), 60)]
	for _, arg := range args {
		switch v := arg.Value.(type) {
		case []byte:
			arg.Value = string(v)
		case int64: // numbers of rows, attempts and the like, which depend on the order of goroutines
			continue
		}
		text += " " + stable(fmt.Sprint(arg.Value))
	}
	text = text[:min(len(text), 300)]
	c.last = text
	return text
}

// commitOf names a commit by the last statement before it.
func (c *conn) commitOf() string { return "commit after " + c.last }

func reads(query string) bool {
	query = strings.TrimSpace(query)
	verb := query[:min(len(query), len("SELECT"))]
	return strings.EqualFold(verb, "SELECT") || strings.EqualFold(verb, "PRAGMA")
}

// random matches what differs in each run: times, ids, and the rows of a batch.
var random = regexp.MustCompile(`\[[0-9,]+\]|[0-9]{9,}|[0-9a-fA-F-]{16,}|[A-Z0-9]{20,}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?`)

func stable(text string) string { return random.ReplaceAllString(text, "*") }

type stmt struct {
	c     *conn
	query string
}

func (s *stmt) Close() error  { return nil }
func (s *stmt) NumInput() int { return -1 }
func (s *stmt) Exec([]driver.Value) (driver.Result, error) {
	return nil, driver.ErrSkip // database/sql uses ExecContext
}
func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.query, args)
}

type rows struct {
	columns []string
	values  [][]driver.Value
}

func (r *rows) read(from driver.Rows) error {
	r.columns = slices.Clone(from.Columns())
	for {
		row := make([]driver.Value, len(r.columns))
		if err := from.Next(row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = slices.Clone(b)
			}
		}
		r.values = append(r.values, row)
	}
}

func (r *rows) Columns() []string { return r.columns }
func (r *rows) Close() error      { return nil }

func (r *rows) Next(row []driver.Value) error {
	if len(r.values) == 0 {
		return io.EOF
	}
	copy(row, r.values[0])
	r.values = r.values[1:]
	return nil
}
