package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ fsync, sync, want string }{
		{"on", "on", ""}, {"on", "remote_apply", ""}, {"on", "local", ""},
		{"off", "on", "fsync=off"}, {"on", "off", "synchronous_commit=off"},
	} {
		err := refuse(c.fsync, c.sync)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("refuse(%s, %s) = %v, want %q", c.fsync, c.sync, err, c.want)
		}
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want int // 0: refused
	}{{"4", 4}, {"8", 8}, {"10000", 10000}, {"3", 0}, {"0", 0}, {"-3", 0}, {"10001", 0}, {"8.0", 0}, {"", 0}, {"99999999999999999999", 0}} {
		cfg := new(pgx.ConnConfig)
		cfg.RuntimeParams = map[string]string{"pool_max_conns": c.text, "application_name": "a"}
		got, err := takeMaxConns(cfg)
		if got != c.want || (err == nil) != (c.want > 0) || err == nil && len(cfg.RuntimeParams) != 1 {
			t.Errorf("pool_max_conns=%s: %d, %v, and %v for the server; want %d", c.text, got, err, cfg.RuntimeParams, c.want)
		}
	}
	if got, err := takeMaxConns(new(pgx.ConnConfig)); got != 20 || err != nil {
		t.Errorf("by default %d, %v; want 20", got, err)
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ detail, table, name, want string }{
		{"Key (email)=(a@b) already exists.", "users", "whatever", "users.email"},
		{`Schlüssel »("userName", a)=(x, )=(y)« existiert bereits.`, "users", "k", "users.userName,users.a"},
		{"Key (lower(email))=(a) already exists.", "users", "users_lower_idx", "users_lower_idx"},
		{"", "users", "users_email_key", "users.email"},
		{"", "users", "users_pkey", "users_pkey"},
		{"", "users", "", ""},
	} {
		got := columnsOf(&pgconn.PgError{Code: "23505", Detail: c.detail, TableName: c.table, ConstraintName: c.name})
		if got != c.want {
			t.Errorf("columns of detail %q, constraint %q = %q, want %q", c.detail, c.name, got, c.want)
		}
	}
}

// The driver hides passwords in what it quotes; ours is the second wall, for whatever it may quote
// one day.
func TestRedact(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://ada:s3cr%2Ft@h:5/db?sslmode=disable": "postgres://ada:xxxxx@h:5/db",
		"postgres://ada@h:5/db?password=s3cr%2Ft":        "postgres://xxxxx@h:5/db",
		"postgres://ada@h:5/db?sslpassword=s3cr%2Ft":     "postgres://xxxxx@h:5/db",
		"postgres://h/db?user=ada@tenant":                "postgres://h/db",
	} {
		where, secrets := describe(url)
		if where != want {
			t.Errorf("describe(%s) = %s, want %s", url, where, want)
		}
		if got := hide("cannot use "+url+" with s3cr/t or s3cr%2Ft", secrets); len(secrets) > 0 && strings.Contains(got, "s3cr") {
			t.Errorf("hidden = %s, want no s3cr", got)
		}
	}
}

// A password with characters that are not encoded can look like a port, a path, a query or a
// fragment. Nothing of such a URL may be told.
func TestPasswordNotEncoded(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://ada:s3c/r@h%%/db", "postgres://ada:12/s3cr@h/db", "postgres://ada:12?s3cr@h/db", "postgres://ada:12#s3cr@h/db",
		"postgres://ada:1@2/s3cr@h/db", "postgres:password=s3cr host=h",
	} {
		if where, _ := describe(url); where != "" {
			t.Errorf("describe(%s) = %q, want nothing", url, where)
		}
		if _, err := open(t.Context(), url); err == nil || strings.Contains(err.Error(), "s3cr") || !strings.Contains(err.Error(), "percent-encoded") {
			t.Errorf("open(%s) = %v, want an error without the password that asks for encoding", url, err)
		}
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("no rows"), false},
		{&pgconn.PgError{Code: "23505"}, false},
		{&pgconn.PgError{Code: "22021"}, false}, // a NUL in a text
		{&pgconn.PgError{Code: "57P01"}, true},
		{&pgconn.PgError{Code: "57P03"}, true},
		{&pgconn.PgError{Code: "53300"}, true},
		{&pgconn.PgError{Code: "08006"}, true},
		{fmt.Errorf("order: %w", &pgconn.ConnectError{}), true},
		{fmt.Errorf("order: %w", &net.OpError{Op: "read", Err: errors.New("connection reset")}), true},
		{io.ErrUnexpectedEOF, true},
		{fmt.Errorf("timeout: %w", context.DeadlineExceeded), false},
	} {
		if got := away(c.err); got != c.want {
			t.Errorf("away(%v) = %t, want %t", c.err, got, c.want)
		}
	}
}
