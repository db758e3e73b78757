// Package postgres is PostgreSQL as a database of package sqldb:
//
//	import _ "github.com/kaptar/kaptar/drivers/postgres"
//
//	DATABASE_URL=postgres://user:password@host:5432/database?sslmode=verify-full
//
// URLs are those of libpq, as pgx reads them; postgresql:// works too. Only sslmode=verify-full
// verifies the server's name. With the default, prefer, anybody between can read and change data.
//
//	sslmode=verify-full          TLS with a certificate for the host
//	sslrootcert=FILE             certificates of authorities to trust, in PEM; default:
//	                             ~/.postgresql/root.crt if it exists, else the system's
//	sslcert=FILE, sslkey=FILE    the client's certificate and its key, in PEM; default:
//	                             ~/.postgresql/postgresql.crt and .key if they exist
//	connect_timeout=10           seconds for one connection attempt; default 10
//	pool_max_conns=20            connections of the pool, 4 to 10000; default 20
//
// The files are read for each new connection, so they can be renewed. All instances of all services
// share the server's max_connections. A connection is closed after one minute idle or 30 minutes in
// all; set other times on the *sql.DB.
//
// Open refuses a server with fsync=off and a session with synchronous_commit=off.
//
// (*sql.Conn).Raw gives what has a method Conn() *pgx.Conn, for example for COPY.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
	"github.com/kaptar/kaptar/sqldb"
)

// The size of a pool. The parameter's name is that of pgxpool. One connection is for the leases and
// one for notifications of other processes (see sqldb.TryLease and sqldb.Signal).
const (
	maxConnsParam = "pool_max_conns"
	defaultConns  = 20
	leastConns    = 4
	mostConns     = 10_000
)

func init() {
	sqldb.Register(dialect(), "postgres", "postgresql")
}

func dialect() *sqldb.Driver {
	return &sqldb.Driver{Dialect: sqldb.Postgres, Open: open, Unique: unique, Retryable: retryable, Away: away, Notification: notification}
}

func open(ctx context.Context, rawURL string) (*sql.DB, error) {
	where, secrets := describe(rawURL)
	if where == "" {
		// The parser's own words would quote pieces of a URL whose password cannot be found in it.
		return nil, errors.New(`sqldb: open: the postgres URL cannot be parsed; expected ` +
			`"postgres://user:password@host:5432/database" with special characters percent-encoded`)
	}
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return nil, fmt.Errorf("sqldb: open %s: %s", where, hide(err.Error(), secrets))
	}
	conns, err := takeMaxConns(cfg)
	if err != nil {
		return nil, fmt.Errorf("sqldb: open %s: %w", where, err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	renew := stdlib.OptionBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
		again, err := pgx.ParseConfig(rawURL) // which reads the files
		if err != nil {
			return errors.New(hide(err.Error(), secrets))
		}
		cfg.TLSConfig, cfg.Fallbacks = again.TLSConfig, again.Fallbacks
		return nil
	})
	connector := stdlib.GetConnector(*cfg, renew)
	db := sqldb.OpenDB(dialect(), func(ctx context.Context) (driver.Conn, error) { return connect(ctx, connector) })
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // with fewer, 16 handlers would close some only to open others
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(30 * time.Minute)
	if err := verify(ctx, db); err != nil {
		_ = db.Close()
		return nil, &redactedError{text: "sqldb: open " + where + ": " + hide(explain(err).Error(), secrets), err: err}
	}
	return db, nil
}

// takeMaxConns takes pool_max_conns out of what would be sent to the server.
func takeMaxConns(cfg *pgx.ConnConfig) (int, error) {
	text, ok := cfg.RuntimeParams[maxConnsParam]
	if !ok {
		return defaultConns, nil
	}
	delete(cfg.RuntimeParams, maxConnsParam)
	n, err := strconv.Atoi(text)
	if err != nil || n < leastConns || n > mostConns {
		return 0, fmt.Errorf("%s=%s: expected a number from %d to %d", maxConnsParam, redact.Visible(text, ""), leastConns, mostConns)
	}
	return n, nil
}

// verify refuses settings under which an acknowledged commit can be lost.
func verify(ctx context.Context, db *sql.DB) error {
	var fsync, sync string
	err := db.QueryRowContext(ctx, "SELECT current_setting('fsync'), current_setting('synchronous_commit')").Scan(&fsync, &sync)
	if err != nil {
		return err
	}
	return refuse(fsync, sync)
}

func refuse(fsync, sync string) error {
	switch {
	case fsync == "off":
		return errors.New("the server runs with fsync=off: a power failure would corrupt the database; set fsync=on")
	case sync == "off":
		return errors.New("synchronous_commit=off for this session: a crash of the server would lose acknowledged commits, " +
			"and events already sent would be of orders that do not exist; set it to on for this role, database or URL")
	}
	return nil
}

// explain says which part of the URL made the server refuse the connection.
func explain(err error) error {
	pg, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case refused && pg.Code == "53300": // too_many_connections
		return fmt.Errorf("the server has no connection left: raise its max_connections, or lower %s in the URLs of its clients: %w", maxConnsParam, err)
	case refused && pg.Code == "28P01": // invalid_password
		return fmt.Errorf("the user or its password is wrong: %w", err)
	case refused && pg.Code == "28000" && strings.Contains(pg.Message, "certificate"): // invalid_authorization_specification
		return fmt.Errorf("the server wants another client's certificate: name it with sslcert and sslkey: %w", err)
	case refused && pg.Code == "28000" && strings.Contains(pg.Message, "no encryption"):
		return fmt.Errorf("if the server takes TLS alone, add sslmode=verify-full&sslrootcert=FILE: %w", err)
	case err != nil && strings.Contains(err.Error(), "server refused TLS connection"): // has no type
		return fmt.Errorf("no TLS is spoken at that port: set ssl=on at the server, or do without by sslmode=disable: %w", err)
	}
	return tlsfiles.ExplainAs(err, "sslrootcert", "sslcert and sslkey")
}

// describe returns the URL without its password and parameters for messages, and the secrets to
// keep out of them; "" when the URL does not parse, or parses only because a password that is not
// encoded was taken for a port and a path.
func describe(rawURL string) (where string, secrets []string) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" || u.Fragment != "" || strings.Contains(u.EscapedPath(), "@") ||
		u.Path == "" && strings.Contains(u.RawQuery, "@") {
		return "", nil
	}
	if p, ok := u.User.Password(); ok {
		_, escaped, _ := strings.Cut(u.User.String(), ":")
		secrets = append(secrets, p, escaped, url.QueryEscape(p))
		if _, raw, ok := strings.Cut(strings.SplitN(rawURL, "@", 2)[0], "//"); ok {
			_, raw, _ = strings.Cut(raw, ":")
			secrets = append(secrets, raw)
		}
	}
	for _, key := range []string{"password", "sslpassword"} {
		for _, p := range u.Query()[key] {
			secrets = append(secrets, p, url.QueryEscape(p), url.PathEscape(p))
		}
	}
	u.RawQuery = ""
	return redact.URL(u.String()), secrets
}

func hide(text string, secrets []string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	return text
}

// redactedError keeps the cause for errors.Is and errors.As but not its words.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

func notification(ctx context.Context, dc any) (string, error) {
	c, ok := dc.(*conn)
	if !ok {
		return "", fmt.Errorf("postgres: notification: a connection of type %T: expected one of this package", dc)
	}
	n, err := c.Conn().WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

func retryable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01") // serialization_failure, deadlock_detected
}

// away reports whether err means that the server could not be reached, or does not serve now.
func away(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "57P01", "57P02", "57P03", "53300": // admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections
			return true
		}
		return strings.HasPrefix(pg.Code, "08") // connection_exception
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false // it says nothing about the server
	}
	_, refused := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return refused || network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, driver.ErrBadConn)
}

func unique(err error) (columns string, ok bool) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Code != "23505" { // unique_violation
		return "", false
	}
	return columnsOf(pg), true
}

// columnsOf reads the detail `Key (a, b)=(1, 2) already exists.` Its words are translated, its
// brackets are not.
func columnsOf(pg *pgconn.PgError) string {
	if _, rest, ok := strings.Cut(pg.Detail, "("); ok {
		if list, _, ok := strings.Cut(rest, ")=("); ok && !strings.ContainsAny(list, "()") {
			names := strings.Split(list, ", ")
			for i, name := range names {
				names[i] = pg.TableName + "." + strings.Trim(name, `"`)
			}
			return strings.Join(names, ",")
		}
	}
	if name, ok := strings.CutPrefix(pg.ConstraintName, pg.TableName+"_"); ok {
		if column, ok := strings.CutSuffix(name, "_key"); ok && column != "" {
			return pg.TableName + "." + column
		}
	}
	return pg.ConstraintName
}
