package sqldb_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

// TestOwn: of several that want a new database at once one gets it, and the others are told whose
// it is.
func TestOwn(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		names := []string{"a-service", "b-service", "c-service", "d-service"}
		errs := make([]error, len(names))
		var wg sync.WaitGroup
		for i, name := range names {
			db := open(t, url)
			wg.Go(func() { errs[i] = sqldb.Own(t.Context(), db, name, "") })
		}
		wg.Wait()
		owner := ""
		for i, err := range errs {
			if err == nil {
				owner += names[i]
			}
		}
		db := open(t, url)
		for i, name := range names {
			first, again := errs[i], sqldb.Own(t.Context(), db, name, "")
			if name == owner {
				if again != nil {
					t.Errorf("Own by its owner again = %v, want nil", again)
				}
				continue
			}
			for _, err := range []error{first, again} {
				if !errors.Is(err, sqldb.ErrOwned) || !strings.Contains(err.Error(), owner) {
					t.Errorf("Own for %s = %v, want ErrOwned and the name of %q", name, err, owner)
				}
			}
		}
	})
}

// A database with tables that nobody is recorded for is refused as it is, until its owner says so.
func TestOwnTables(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		exec(t, db, "CREATE TABLE books (id BIGINT PRIMARY KEY)")
		for range 2 { // the first leaves nothing behind
			err := sqldb.Own(t.Context(), db, "loans", "books-service")
			if !errors.Is(err, sqldb.ErrOwned) || !strings.Contains(err.Error(), "it has tables (books)") {
				t.Errorf("Own of a database with tables = %v, want ErrOwned and the name of one", err)
			}
		}
		if err := sqldb.Own(t.Context(), db, "loans", sqldb.Unowned); err != nil {
			t.Errorf("Own with its tables = %v", err)
		}
		if err := sqldb.Own(t.Context(), db, "books", sqldb.Unowned); !errors.Is(err, sqldb.ErrOwned) {
			t.Errorf("Own of an owned database as unowned = %v, want ErrOwned", err)
		}
		exec(t, db, "DELETE FROM kaptar_owner") // what an operator may do
		if err := sqldb.Own(t.Context(), db, "books", ""); err != nil {
			t.Errorf("Own after the record was deleted = %v", err)
		}
	})
}

// A service with a new name takes its database over from the old one, which is then locked out.
func TestOwnTakeOver(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		for _, c := range []struct {
			name, from string
			ok         bool
		}{{"loans", "", true}, {"lending", "", false}, {"lending", "borrowing", false}, {"lending", "loans", true}, {"lending", "loans", true}, {"lending", "", true}, {"loans", "", false}} {
			if err := sqldb.Own(t.Context(), db, c.name, c.from); (err == nil) != c.ok || err != nil && !errors.Is(err, sqldb.ErrOwned) {
				t.Errorf("Own by %s from %q = %v, want it to work: %t", c.name, c.from, err, c.ok)
			}
		}
	})
}
