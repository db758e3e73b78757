package servertest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaptar/kaptar/internal/test/servers"
)

const callTimeout = 30 * time.Second // on a machine that is busy

// Database returns the URL of a new, empty database on the shared PostgreSQL, which is dropped
// after the test.
func Database(t testing.TB) string {
	t.Helper()
	admin := Shared(t, servers.Postgres).URL()
	name := "kaptar_" + strings.ToLower(rand.Text()[:16])
	if err := execute(admin, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatalf("servertest: create a database: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("servertest: drop the database: %v", err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("servertest: %s is no URL", variable(servers.Postgres))
	}
	u.Path = "/" + name
	return u.String()
}

func execute(admin, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}
