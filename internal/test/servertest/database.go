package servertest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// Database returns the URL of a new, empty database on the shared PostgreSQL, which is dropped
// after the test.
func Database(t testing.TB) string {
	t.Helper()
	admin := Shared(t, servers.Postgres).URL()
	name := "kaptar_" + strings.ToLower(rand.Text()[:16])
	var url string
	err := bounded(func(ctx context.Context) (err error) {
		url, err = servers.NewDatabase(ctx, admin, name)
		return err
	})
	if err != nil {
		t.Fatalf("servertest: create a database: %v", err)
	}
	t.Cleanup(func() {
		err := bounded(func(ctx context.Context) error {
			return servers.Execute(ctx, admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		})
		if err != nil {
			t.Errorf("servertest: drop the database: %v", err)
		}
	})
	return url
}

// bounded calls a server that does not hang.
func bounded(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // on a machine that is busy
	defer cancel()
	return call(ctx)
}
