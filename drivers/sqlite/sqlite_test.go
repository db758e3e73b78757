package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

// What a service keeps is nobody else's to read: a new file, those that SQLite makes beside it, and
// a new folder.
func TestModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(dir, "users.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE a (n BIGINT)"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "users.db": 0o600, "users.db-wal": 0o600, "users.db-shm": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v; want mode %o", name, info, err, want)
		}
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"sqlite://ada:s3cr@h/users.db", "sqlite:users.db?key=s3cr", "sqlite://ada:s3/cr@h/users.db?key=s3cr", "sqlite:ada:s3cr@h?x",
	} {
		db, err := sqldb.Open(t.Context(), url)
		if err == nil {
			db.Close()
			t.Errorf("Open(%s): no error", url)
		} else if strings.Contains(err.Error(), "s3") {
			t.Errorf("Open(%s) shows the secret: %v", url, err)
		}
	}
}

// A BEGIN whose context ends leaves no transaction, whenever that is.
func TestBeginCancelled(t *testing.T) {
	t.Parallel()
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "users.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancelled := 0
	err = conn.Raw(func(c any) error {
		lite := c.(sqldb.GroupConn)
		for range 5000 {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if lite.BeginGroup(ctx) != nil {
				cancelled++
				if err := lite.BeginGroup(t.Context()); err != nil {
					return err
				}
			}
			if err := lite.EndGroup(false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || cancelled == 0 {
		t.Errorf("after %d that were cancelled: %v", cancelled, err)
	}
}
