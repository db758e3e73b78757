package sqldb

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestVersionAtLeast(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"3.51.3": true, "3.51.10": true, "3.52": true, "4.0.0": true, "3.54.1": true,
		"3.51.2": false, "3.51": false, "3.9.9": false, "2.99.99": false, "": false,
	} {
		if got := versionAtLeast(version, minSQLite); got != want {
			t.Errorf("versionAtLeast(%q, %q) = %t, want %t", version, minSQLite, got, want)
		}
	}
}

// A waiter gives up at the very moment it gets the turn: the turn must not be lost.
func TestQueueTurnMeetsCancel(t *testing.T) {
	t.Parallel()
	for range 200 {
		var q writeQueue
		if err := q.acquire(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- q.acquire(ctx, false) }()
		for waiting := 0; waiting == 0; runtime.Gosched() {
			q.mu.Lock()
			if waiting = len(q.waiters); waiting == 1 {
				cancel()
				q.passOn()
			}
			q.mu.Unlock()
		}
		err := <-result
		cancel()
		if err == nil {
			q.release()
		}
		q.mu.Lock()
		if q.taken {
			t.Fatal("the turn is taken, and nobody has it")
		}
		q.mu.Unlock()
	}
}

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

func TestPostgresColumns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ detail, table, name, want string }{
		{"Key (email)=(a@b) already exists.", "users", "whatever", "users.email"},
		{`Schlüssel »("userName", a)=(x, )=(y)« existiert bereits.`, "users", "k", "users.userName,users.a"},
		{"Key (lower(email))=(a) already exists.", "users", "users_lower_idx", "users_lower_idx"},
		{"", "users", "users_email_key", "users.email"},
		{"", "users", "users_pkey", "users_pkey"},
		{"", "users", "", ""},
	} {
		got := postgresColumns(&pgconn.PgError{Code: "23505", Detail: c.detail, TableName: c.table, ConstraintName: c.name})
		if got != c.want {
			t.Errorf("columns of detail %q, constraint %q = %q, want %q", c.detail, c.name, got, c.want)
		}
	}
}

// The driver hides passwords in what it quotes; ours is the second wall, for whatever it may quote one day.
func TestRedact(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://ada:s3cr%2Ft@h:5/db?sslmode=disable",
		"postgres://ada@h:5/db?password=s3cr%2Ft",
		"postgres://ada@h:5/db?sslpassword=s3cr%2Ft",
	} {
		where, secrets := describe(url)
		if where != "postgres://ada@h:5/db" {
			t.Errorf("describe(%s) = %s, want it without password and parameters", url, where)
		}
		got := redact("cannot use "+url+" with s3cr/t or s3cr%2Ft", secrets)
		if strings.Contains(got, "s3cr") || !strings.Contains(got, "[redacted]") {
			t.Errorf("redacted = %s, want no s3cr", got)
		}
	}
	if where, _ := describe("postgres://ada:s3c/r@h%%/db"); where != "" {
		t.Errorf("describe of a malformed URL = %q, want nothing", where)
	}
}
