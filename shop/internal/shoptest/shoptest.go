// Package shoptest has what several services' tests share beside package kaptartest.
package shoptest

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/kaptar/kaptar/auth"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Event is a CloudEvent as a program in another language would publish it; data is JSON.
func Event(topic, id, key, data string) driver.Message {
	return driver.Message{ID: id, Topic: topic, Key: key, Data: []byte(data), Headers: driver.HeadersOf(map[string]string{
		driver.HeaderSpecVersion: "1.0", driver.HeaderID: id, driver.HeaderSource: "shoptest", driver.HeaderType: topic,
		driver.HeaderSubject: key, driver.HeaderTime: time.Now().UTC().Format(time.RFC3339), driver.HeaderContentType: "application/json",
	})}
}

// As may do everything, as the service called caller or, when that is "", as a machine from outside.
func As(caller string) *auth.Principal {
	return &auth.Principal{Subject: "key:shoptest", Scopes: []string{"*"}, Caller: caller}
}

// Eventually is kaptartest's for conditions that say what they saw last.
func Eventually(t *testing.T, what string, done func() (ok bool, last string)) {
	t.Helper()
	kaptartest.Eventually(t, what, func() error {
		if ok, last := done(); !ok {
			return errors.New(last)
		}
		return nil
	})
}

// OnEachDialect runs test on an SQLite and on a PostgreSQL database with
// migrations and the tables of the outbox. Packages that use it call servertest.Main in TestMain.
func OnEachDialect(t *testing.T, migrations fs.FS, test func(t *testing.T, db *sql.DB)) {
	urls := map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") },
		"postgres": func(t *testing.T) string { return servertest.Database(t) },
	}
	for dialect, url := range urls {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			db, err := sqldb.Open(ctx, url(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if err := sqldb.Migrate(ctx, db, migrations, ""); err != nil {
				t.Fatal(err)
			}
			if err := outbox.Migrate(ctx, db); err != nil {
				t.Fatal(err)
			}
			test(t, db)
		})
	}
}
