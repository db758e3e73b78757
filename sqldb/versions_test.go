package sqldb_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

// migrateEnv has the version and the URL with which the test binary migrates a database, as a program
// of its own.
const migrateEnv = "KAPTAR_SQLDB_TEST_MIGRATE"

func TestMain(m *testing.M) {
	if version, url, ok := strings.Cut(os.Getenv(migrateEnv), " "); ok {
		err := migrateAs(context.Background(), version, url)
		fmt.Println(err)
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	servertest.Main(m)
}

// release has the migrations of a version: v2 adds a column, v3 stops using the old one, v4 drops it.
func release(version string) fstest.MapFS {
	all := []string{
		"001_a.sql", "-- +goose Up\nCREATE TABLE a (n BIGINT);\nINSERT INTO a VALUES (1);\n",
		"002_m.sql", "-- +goose Up\nALTER TABLE a ADD COLUMN m BIGINT;\n",
		"003_fill.sql", "-- +goose Up\nUPDATE a SET m = n WHERE m IS NULL;\n",
		"004_n.sql", "-- kaptar:contract 3 v3 uses m alone\n-- +goose Up\nALTER TABLE a DROP COLUMN n;\n",
	}
	return files(all[:2*int(version[1]-'0')]...)
}

func migrateAs(ctx context.Context, version, url string) error {
	db, err := sqldb.Open(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	return sqldb.Migrate(ctx, db, release(version), "")
}

// Versions start on the databases of others, forwards and backwards, as far as they can live with them.
func TestMigrateVersions(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		const refused = "sqldb: migrate %s: the database is newer than this program: it has version 4 in schema_migrations, " +
			"after which only programs with migration 3 work; run the newer program or restore the older database"
		for i, start := range []struct {
			version string
			refused bool
		}{
			{"v1", false},
			{"v2", false}, {"v1", false}, // a restart of v1 during the release, or after its undo
			{"v2", false}, {"v3", false}, {"v1", false}, {"v2", false}, {"v3", false},
			{"v4", false}, {"v3", false}, {"v2", true}, {"v1", true}, {"v4", false},
		} {
			want := "<nil>"
			if start.refused {
				want = fmt.Sprintf(refused, sqldb.DialectOf(open(t, url)))
			}
			if err := migrateAs(t.Context(), start.version, url); fmt.Sprint(err) != want {
				t.Fatalf("start %d of %s: got %v, want %s", i, start.version, err, want)
			}
		}
	})
}

// What would break a running version is refused on a database that is in use, and a fresh one gets it.
func TestMigrateBreaking(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		breaking := release("v1")
		maps.Copy(breaking, files("002_z.sql", "-- +goose Up\nCREATE TABLE z (n BIGINT);\n", "003_n.sql", "-- +goose Up\nALTER TABLE a RENAME COLUMN n TO o;\n"))
		migrate := func(v fstest.MapFS) error { return sqldb.Migrate(t.Context(), db, v, "") }
		if err := migrate(release("v1")); err != nil {
			t.Fatal(err)
		}
		err := migrate(breaking)
		if want := "a running version would break, nothing was applied: 003_n.sql:2: ALTER TABLE a RENAME COLUMN n TO o: the running version knows the old name"; err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("Migrate: got %v, want %q", err, want)
		}
		if n := queryInt(t, db, "SELECT max(version_id) FROM schema_migrations"); n != 1 {
			t.Errorf("version %d after it was refused, want 1", n)
		}
		for name := range breaking {
			if strings.HasSuffix(name, "003_n.sql") {
				breaking[name] = &fstest.MapFile{Data: []byte("-- kaptar:contract 3 this is no release\n" + string(breaking[name].Data))}
			}
		}
		if err := migrate(breaking); err != nil {
			t.Errorf("Migrate of what is marked: %v", err)
		}
		if err := migrate(release("v1")); err == nil || !strings.Contains(err.Error(), "after which only programs with migration 3 work") {
			t.Errorf("Migrate of v1: %v, want that it is refused", err)
		}
	})
}

// A fresh database gets all files, and what breaks in them counts as it would have.
func TestMigrateFreshBreaking(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		old := "-- +goose Up\nCREATE TABLE a (n BIGINT);\n"
		for _, recorded := range []string{"as it is applied", "later"} {
			if err := sqldb.Migrate(t.Context(), db, files("001_a.sql", old, "002_b.sql", "-- +goose Up\nDROP TABLE a;\n"), ""); err != nil {
				t.Fatal(err)
			}
			err := sqldb.Migrate(t.Context(), db, files("001_a.sql", old), "")
			if err == nil || !strings.Contains(err.Error(), "it has version 2 in schema_migrations, after which only programs with migration 2 work") {
				t.Errorf("recorded %s: Migrate of the program before: %v", recorded, err)
			}
			exec(t, db, "DELETE FROM schema_migrations_files")
		}
	})
}

// Who migrated PostgreSQL may be killed before it has recorded what it applied.
func TestMigrateUnrecorded(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		if err := migrateAs(t.Context(), "v2", url); err != nil {
			t.Fatal(err)
		}
		exec(t, db, "DROP TABLE schema_migrations_files")
		if err := migrateAs(t.Context(), "v1", url); err == nil || !strings.Contains(err.Error(), "only programs with migration 2") {
			t.Errorf("v1: %v; want that it is refused, as nobody knows what it can live with", err)
		}
		for _, version := range []string{"v2", "v1"} {
			if err := migrateAs(t.Context(), version, url); err != nil {
				t.Errorf("%s: %v", version, err)
			}
		}
	})
}

// An old version that starts while another process has applied something and not yet recorded it
// waits for that.
func TestMigrateAboutToBeRecorded(t *testing.T) {
	t.Parallel()
	url := servertest.Database(t)
	if err := migrateAs(t.Context(), "v2", url); err != nil {
		t.Fatal(err)
	}
	db := open(t, url)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, query := range []string{fmt.Sprintf("SELECT pg_advisory_lock(%d)", 0x6b61707461720001), "ALTER TABLE schema_migrations_files RENAME TO later"} {
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- migrateAs(t.Context(), "v1", url) }()
	for queryInt(t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'") == 0 {
		select {
		case err := <-ended:
			t.Fatalf("v1 did not wait: %v", err)
		default:
		}
	}
	for _, query := range []string{"ALTER TABLE later RENAME TO schema_migrations_files", "SELECT pg_advisory_unlock_all()"} {
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("v1: %v", err)
	}
}

// Processes of two versions migrate a fresh database at once: each file is applied once, and all start.
func TestMigrateProcesses(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	eachDialect(t, func(t *testing.T, url string) {
		said := make(chan string)
		const processes = 5
		for i := range processes {
			version := []string{"v1", "v3"}[i%2]
			cmd := osexec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), migrateEnv+"="+version+" "+url)
			go func() {
				out, err := cmd.CombinedOutput()
				said <- fmt.Sprintf("%s: %s%v", version, out, err)
			}()
		}
		for range processes {
			if got := <-said; !strings.HasSuffix(got, ": <nil>\n<nil>") {
				t.Error(got)
			}
		}
		db := open(t, url)
		for query, want := range map[string]int{
			"SELECT count(*) FROM a WHERE m = 1":                             1,
			"SELECT count(*) FROM schema_migrations WHERE version_id > 0":    3,
			"SELECT count(*) FROM schema_migrations_files WHERE needs = 0":   3,
			"SELECT count(*) FROM schema_migrations_files WHERE needs <> 0":  0,
			"SELECT count(DISTINCT version_id) FROM schema_migrations_files": 3,
		} {
			if got := queryInt(t, db, query); got != want {
				t.Errorf("%s: %d, want %d", query, got, want)
			}
		}
	})
}
