package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	neturl "net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	postgresMaxOpen     = 20
	postgresMaxIdle     = 10
	postgresMaxIdleTime = 5 * time.Minute
	postgresMaxLifetime = 30 * time.Minute
	postgresConnect     = 10 * time.Second
)

func openPostgres(ctx context.Context, url string) (*sql.DB, error) {
	where, secrets := describe(url)
	if where == "" {
		// The parser's own words would quote pieces of a URL whose password cannot be found in it.
		return nil, errors.New(`sqldb: open: the postgres URL cannot be parsed; expected ` +
			`"postgres://user:password@host:5432/database" with special characters percent-encoded`)
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("sqldb: open %s: %s", where, redact(err.Error(), secrets))
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = postgresConnect
	}
	d := &dbDriver{dialect: Postgres}
	d.open = stdlib.GetConnector(*cfg).Connect
	db := sql.OpenDB(connector{d})
	db.SetMaxOpenConns(postgresMaxOpen)
	db.SetMaxIdleConns(postgresMaxIdle)
	db.SetConnMaxIdleTime(postgresMaxIdleTime)
	db.SetConnMaxLifetime(postgresMaxLifetime)
	if err := verifyPostgres(ctx, db); err != nil {
		_ = db.Close()
		return nil, &redactedError{text: redact(fmt.Sprintf("sqldb: open %s: %v", where, err), secrets), err: err}
	}
	return db, nil
}

// verifyPostgres refuses settings under which an acknowledged commit can be lost.
func verifyPostgres(ctx context.Context, db *sql.DB) error {
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

// describe returns the URL without its password and parameters for messages, and the secrets to keep out of them;
// "" when the URL does not parse.
func describe(url string) (where string, secrets []string) {
	u, err := neturl.Parse(url)
	if err != nil {
		return "", nil
	}
	if p, ok := u.User.Password(); ok {
		_, escaped, _ := strings.Cut(u.User.String(), ":")
		secrets = append(secrets, p, escaped, neturl.QueryEscape(p))
		if _, raw, ok := strings.Cut(strings.SplitN(url, "@", 2)[0], "//"); ok {
			_, raw, _ = strings.Cut(raw, ":")
			secrets = append(secrets, raw)
		}
	}
	for _, key := range []string{"password", "sslpassword"} {
		for _, p := range u.Query()[key] {
			secrets = append(secrets, p, neturl.QueryEscape(p), neturl.PathEscape(p))
		}
	}
	user := ""
	if name := u.User.Username(); name != "" {
		user = neturl.User(name).String() + "@"
	}
	return u.Scheme + "://" + user + u.Host + u.EscapedPath(), secrets
}

func redact(text string, secrets []string) string {
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
