package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/kaptar/kaptar/sqldb"
)

// files makes a folder of migrations for both dialects; name and text alternate.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		for _, d := range []string{"sqlite", "postgres"} {
			m["migrations/"+d+"/"+pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
		}
	}
	return m
}

const createA = "-- +goose Up\nCREATE TABLE a (n BIGINT);\n-- +goose Down\nDROP TABLE a;\n"

func TestMigrate(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		one := files("001_a.sql", createA)
		two := files("001_a.sql", createA, "002_seed.sql", "-- +goose Up\nINSERT INTO a VALUES (1);\n")
		sub, err := fs.Sub(two, "migrations")
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range []fs.FS{one, one, two, two, sub} {
			if err := sqldb.Migrate(t.Context(), db, m, ""); err != nil {
				t.Fatalf("Migrate %d: %v", i, err)
			}
		}
		if n := count(t, db, "a"); n != 1 {
			t.Errorf("rows = %d, want 1: each file once", n)
		}
		if n := queryInt(t, db, "SELECT max(version_id) FROM schema_migrations"); n != 2 {
			t.Errorf("version = %d, want 2", n)
		}
		// A second set in the same database has its own table.
		if err := sqldb.Migrate(t.Context(), db, files("001_b.sql", "-- +goose Up\nCREATE TABLE b (n BIGINT);"), "other_schema"); err != nil {
			t.Errorf("a second set: %v", err)
		}
		if n := count(t, db, "b"); n != 0 {
			t.Errorf("rows of b = %d, want 0", n)
		}
		if err := sqldb.Migrate(t.Context(), db, files("001_a.sql", createA, "002_seed.sql", "-- +goose Up\nINSERT INTO a VALUES (1);\n",
			"003_d.sql", "-- kaptar:contract 2 nobody counts a any more\n-- +goose Up\nDROP TABLE a;\n"), ""); err != nil {
			t.Fatal(err)
		}
		err = sqldb.Migrate(t.Context(), db, one, "")
		if err == nil || !strings.Contains(err.Error(), "newer than this program: it has version 3 in schema_migrations, after which only programs with migration 2 work;") {
			t.Errorf("Migrate of a newer database: %v; want that it has version 3", err)
		}
		err = sqldb.Migrate(t.Context(), db, files("001_a.sql", createA, "004_c.sql", "-- +goose Up\nCREATE TABLE c (n BIGINT);"), "")
		if err == nil || !strings.Contains(err.Error(), "it has version 3") {
			t.Errorf("Migrate of a newer database with something to do: %v; want that it has version 3", err)
		}
		if _, err := db.Exec("SELECT n FROM c"); err == nil {
			t.Error("a newer database was migrated")
		}
		// The connections are as before.
		if err := inTx(t, db, func(tx *sql.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
		if sqldb.DialectOf(db) == sqldb.SQLite {
			if n := queryInt(t, db, "PRAGMA foreign_keys"); n != 1 {
				t.Errorf("foreign_keys after Migrate = %d, want 1", n)
			}
		}
	})
}

func TestMigrateBroken(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		m := files("001_a.sql", createA,
			"002_broken.sql", "-- +goose Up\nCREATE TABLE half (n BIGINT);\nINSERT INTO half VALUES (1);\nINSERT INTO nowhere VALUES (1);\n",
			"003_c.sql", "-- +goose Up\nCREATE TABLE c (n BIGINT);\n")
		for range 2 {
			err := sqldb.Migrate(t.Context(), db, m, "")
			if err == nil || !strings.Contains(err.Error(), ": 002_broken.sql:4: ") || !strings.Contains(err.Error(), "nowhere") ||
				strings.Contains(err.Error(), "\n") {
				t.Fatalf("Migrate = %v; want one line with 002_broken.sql, its line 4 and the missing table nowhere", err)
			}
		}
		if n := queryInt(t, db, "SELECT max(version_id) FROM schema_migrations"); n != 1 {
			t.Errorf("version = %d, want 1", n)
		}
		for _, table := range []string{"half", "c"} {
			if _, err := db.Exec("SELECT n FROM " + table); err == nil {
				t.Errorf("table %s is there, want nothing of the broken file and after it", table)
			}
		}
		fixed := files("001_a.sql", createA, "002_broken.sql", "-- +goose Up\nCREATE TABLE half (n BIGINT);\n")
		if err := sqldb.Migrate(t.Context(), db, fixed, ""); err != nil {
			t.Errorf("Migrate of the mended file: %v", err)
		}
	})
}

// The error of a file has the line at which the statement begins, unless it could be another one.
func TestMigrateBrokenLine(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		for text, want := range map[string]string{
			"-- +goose Up\n\n-- why\nINSERT INTO\n  -- and so\n  nowhere\nVALUES (1);\n":                     "001_a.sql:4: ",
			"-- +goose Up\r\nCREATE TABLE b (n BIGINT);\r\nINSERT INTO nowhere\r\nVALUES (1);\r\n":           "001_a.sql:3: ",
			"-- +goose Up\n-- +goose StatementBegin\nINSERT INTO nowhere VALUES (1)\n-- +goose StatementEnd": "001_a.sql:3: ",
			"-- +goose Up\nCREATE TABLE b (n BIGINT);\nCREATE TABLE b (n BIGINT);\n":                         "001_a.sql: ",
		} {
			if err := sqldb.Migrate(t.Context(), open(t, url), files("001_a.sql", text), ""); err == nil || !strings.Contains(err.Error(), ": "+want) {
				t.Errorf("Migrate of %q = %v, want it at %q", text, err, want)
			}
		}
	})
}

// An edited file is refused before anything else is applied, whatever its line ends were, until the
// database is told that it has the change.
func TestMigrateEdited(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		migrate := func(pairs ...string) error { return sqldb.Migrate(t.Context(), db, files(pairs...), "") }
		const b, edited = "-- +goose Up\nCREATE TABLE b (n BIGINT);\n", "-- +goose Up\nCREATE TABLE a (n BIGINT, m BIGINT);\n"
		if err := errors.Join(migrate("001_a.sql", createA), migrate("001_a.sql", strings.ReplaceAll(createA, "\n", "\r\n")+"\r\n")); err != nil {
			t.Fatal(err)
		}
		for _, pairs := range [][]string{{"001_a.sql", edited}, {"001_a.sql", edited, "002_b.sql", b}} {
			err := migrate(pairs...)
			if err == nil || !strings.Contains(err.Error(), "001_a.sql was edited after it was applied") {
				t.Errorf("Migrate of an edited file = %v, want it named", err)
			}
		}
		if _, err := db.Exec("SELECT n FROM b"); err == nil {
			t.Error("the file after the edited one was applied")
		}
		exec(t, db, "DELETE FROM schema_migrations_files WHERE version_id = 1") // as the error says
		if err := migrate("001_a.sql", edited, "002_b.sql", b); err != nil {
			t.Errorf("Migrate after its sum was deleted = %v", err)
		}
		if err := migrate("001_a.sql", createA, "002_b.sql", b); err == nil {
			t.Error("the sum of the edited file was not recorded")
		}
	})
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite::memory:")
	onlyPostgres := fstest.MapFS{"migrations/postgres/001_a.sql": &fstest.MapFile{Data: []byte(createA)}}
	for _, c := range []struct {
		fsys        fs.FS
		table, want string
	}{
		{onlyPostgres, "", "is sqlite, and there are migrations for postgres only"},
		{fstest.MapFS{}, "", "no folder migrations/sqlite"},
		{nil, "", "no migrations given"},
		{files("create_a.sql", createA), "", "create_a.sql: expected a name like 001_create_users.sql"},
		{files("1_a.sql", createA, "001_b.sql", createA), "", "the same number"},
		{files("readme.txt", ""), "", "holds no .sql file"},
		{files("001_a.sql", "-- +goose NO TRANSACTION\n"+createA), "", "001_a.sql: NO TRANSACTION"},
		{files("001_a.sql", createA), "a; DROP TABLE b", "version table"},
		{files("001_a.sql", "CREATE TABLE a (n BIGINT);"), "", `001_a.sql: there is no line "-- +goose Up"`},
	} {
		err := sqldb.Migrate(t.Context(), db, c.fsys, c.table)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Migrate(%v, %q) = %v, want %q", c.fsys, c.table, err, c.want)
		}
	}
	if n := queryInt(t, db, "SELECT count(*) FROM sqlite_schema WHERE name = 'a'"); n != 0 {
		t.Error("a refused set left its table")
	}
}

// Many instances start at once: each file runs once, and all succeed.
func TestMigrateConcurrently(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		var dbs []*sql.DB
		for range 6 {
			dbs = append(dbs, open(t, url))
		}
		all := func(m fs.FS) {
			var wg sync.WaitGroup
			begin := make(chan bool)
			for _, db := range dbs {
				for range 2 {
					wg.Go(func() {
						<-begin
						if err := sqldb.Migrate(t.Context(), db, m, ""); err != nil {
							t.Errorf("Migrate: %v", err)
						}
					})
				}
			}
			close(begin)
			wg.Wait()
		}
		pairs := []string{"001_a.sql", createA}
		all(files(pairs...))
		// With the version table there, nothing but the lock keeps them apart. The files take their
		// time.
		for i := 2; i < 6; i++ {
			pairs = append(pairs, fmt.Sprintf("%03d_seed.sql", i), "-- +goose Up\nINSERT INTO a SELECT count(*) FROM "+
				"(WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 30000) SELECT x FROM c) AS d;\n")
		}
		all(files(pairs...))
		if n := count(t, dbs[0], "a"); n != 4 {
			t.Errorf("rows = %d, want 4: each seed once", n)
		}
	})
}

func TestMigrateSQLiteRebuildsTables(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite:"+t.TempDir()+"/r.db")
	base := "-- +goose Up\nCREATE TABLE p (n BIGINT PRIMARY KEY);\nCREATE TABLE c (n BIGINT REFERENCES p (n) ON DELETE CASCADE);\nINSERT INTO p VALUES (1);\nINSERT INTO c VALUES (1);\n"
	rebuild := "-- +goose Up\nCREATE TABLE p2 (n BIGINT PRIMARY KEY, x TEXT);\nINSERT INTO p2 (n) SELECT n FROM p;\nDROP TABLE p;\nALTER TABLE p2 RENAME TO p;\n"
	if err := sqldb.Migrate(t.Context(), db, files("001_base.sql", base, "002_rebuild.sql", rebuild), ""); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, "c"); n != 1 {
		t.Errorf("children = %d, want 1: the rebuild must not cascade", n)
	}
	breaks := files("001_base.sql", base, "002_rebuild.sql", rebuild, "003_break.sql", "-- +goose Up\nDELETE FROM p;\n")
	err := sqldb.Migrate(t.Context(), db, breaks, "")
	if err == nil || !strings.Contains(err.Error(), "row 1 of c without its row in p") {
		t.Errorf("Migrate that orphans = %v, want the row named", err)
	}
	if n := count(t, db, "p"); n != 1 {
		t.Errorf("parents = %d, want 1: nothing applied", n)
	}
	if err := inTx(t, db, func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO c VALUES (5)"); return err }); err == nil {
		t.Error("foreign keys are off after Migrate")
	}
}

func TestMigrateWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := sqldb.Migrate(ctx, db, files("001_a.sql", createA), ""); err == nil {
			t.Error("Migrate with an ended ctx: no error")
		}
		if err := sqldb.Migrate(t.Context(), db, files("001_a.sql", createA), ""); err != nil {
			t.Errorf("Migrate afterwards: %v", err)
		}
	})
}
