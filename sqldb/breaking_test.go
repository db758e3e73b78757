package sqldb

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// both dialects are of one opinion.
const both Dialect = ""

// corpus are statements of a migration on a database that a running version uses, and what they break.
var corpus = []struct {
	dialect   Dialect
	sql, want string
}{
	// What a new version may add.
	{both, "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE CHECK (name <> ''))", ""},
	{both, "create table if not exists t (id bigint references users (id))", ""},
	{both, "CREATE VIEW v AS SELECT id FROM users", ""},
	{both, "ALTER TABLE users ADD COLUMN display_name TEXT", ""},
	{both, "ALTER TABLE users ADD display_name VARCHAR(80)", ""},
	{both, "ALTER TABLE users ADD COLUMN n BIGINT NOT NULL DEFAULT 0", ""},
	{both, "ALTER TABLE users ADD COLUMN n BIGINT DEFAULT -1 NOT NULL", ""},
	{both, "ALTER TABLE users ADD COLUMN s TEXT NOT NULL DEFAULT 'it''s UNIQUE; DROP TABLE users'", ""},
	{both, `ALTER TABLE users ADD COLUMN "unique" TEXT NULL`, ""},
	{Postgres, "ALTER TABLE IF EXISTS ONLY users ADD COLUMN IF NOT EXISTS at TIMESTAMPTZ NOT NULL DEFAULT now()", ""},
	{Postgres, "ALTER TABLE users ADD a TEXT, ADD b NUMERIC(10, 2) DEFAULT 1.5, ADD c TEXT[] NOT NULL DEFAULT '{}'::text[]", ""},
	{Postgres, "ALTER TABLE users ADD COLUMN c VARCHAR(20) DEFAULT 'x'::character varying(20) NOT NULL", ""},
	{Postgres, "ALTER TABLE users ALTER COLUMN email SET DEFAULT ''", ""},
	{Postgres, "ALTER TABLE users VALIDATE CONSTRAINT users_age", ""},
	{Postgres, "ALTER TYPE state ADD VALUE 'paused'", ""},
	{Postgres, "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_at ON users (at)", ""},
	{SQLite, "CREATE INDEX users_at ON users (at)", ""},
	{SQLite, "ALTER TABLE users ADD COLUMN lower_name TEXT NOT NULL GENERATED ALWAYS AS (lower(name))", ""},
	{SQLite, "ALTER TABLE users ADD COLUMN org BIGINT REFERENCES orgs (id)", ""},
	{both, "UPDATE users SET display_name = username WHERE display_name IS NULL", ""},
	{both, "INSERT INTO kinds (name) VALUES ('drop table users')", ""},
	{both, "/* DROP TABLE users; */ SELECT 1 -- ; DROP TABLE users", ""},
	{SQLite, "CREATE TRIGGER both AFTER INSERT ON users BEGIN UPDATE users SET a = b; DELETE FROM old; END", ""},
	{Postgres, "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN DROP TABLE users; $$ RETURN NEW; END $body$", ""},
	{Postgres, `INSERT INTO a VALUES (E'\'; DROP TABLE users; --')`, ""},
	// What is new in the file nobody uses.
	{both, "CREATE TABLE t (n BIGINT); CREATE UNIQUE INDEX t_n ON t (n); ALTER TABLE t DROP COLUMN n; DROP INDEX t_n; DROP TABLE t", ""},
	{both, "CREATE TABLE t (n BIGINT); ALTER TABLE t RENAME TO u; ALTER TABLE u ALTER COLUMN n SET NOT NULL", ""},
	{Postgres, "CREATE TEMP TABLE t AS SELECT 1; CREATE INDEX ON t (n)", ""},

	// What the running version may use.
	{both, "DROP TABLE users", dropped},
	{both, "drop table if exists users cascade", dropped},
	{both, "CREATE TABLE t (n BIGINT); DROP TABLE t, users", dropped},
	{both, "CREATE TABLE t (n BIGINT); DROP TABLE t; DROP TABLE t", dropped},
	{both, "CREATE TABLE IF NOT EXISTS users (n BIGINT); DROP TABLE users", dropped},
	{SQLite, "CREATE TABLE 'copy' (n BIGINT); DROP TABLE 'users'", dropped},
	{both, "DROP VIEW v", dropped},
	{both, "DROP INDEX users_email", dropped},
	{both, "DROP TRIGGER both", dropped},
	{both, "ALTER TABLE users DROP COLUMN email", dropped},
	{both, "ALTER TABLE public.users DROP email", dropped},
	{Postgres, `ALTER TABLE "users" ADD a TEXT, DROP CONSTRAINT users_email_key`, dropped},
	{both, "alter/**/table users\n-- then\nrename to people", renamed},
	{both, "ALTER TABLE users RENAME COLUMN email TO mail", renamed},
	{both, "CREATE TABLE new (id BIGINT); INSERT INTO new SELECT id FROM users; DROP TABLE users; ALTER TABLE new RENAME TO users", dropped},
	{both, "TRUNCATE users", truncated},
	// What the running version may write, or read.
	{both, "ALTER TABLE users ADD COLUMN n BIGINT NOT NULL", required},
	{both, "ALTER TABLE users ADD COLUMN n BIGINT NOT NULL DEFAULT NULL", required},
	{both, "ALTER TABLE users ADD COLUMN s TEXT NOT NULL /* DEFAULT 0 */", required},
	{both, "ALTER TABLE users ADD COLUMN n BIGINT UNIQUE", constrained},
	{both, "ALTER TABLE users ADD COLUMN n BIGINT DEFAULT 1 CHECK (n > 0)", constrained},
	{both, "CREATE UNIQUE INDEX users_email ON users (email)", constrained},
	{Postgres, "CREATE UNIQUE INDEX CONCURRENTLY users_email ON users (email)", constrained},
	{Postgres, "ALTER TABLE users ADD CONSTRAINT adult CHECK (age > 17) NOT VALID", constrained},
	{Postgres, "ALTER TABLE users ADD UNIQUE (email)", constrained},
	{Postgres, "ALTER TABLE users ADD FOREIGN KEY (org) REFERENCES orgs (id)", constrained},
	{Postgres, "ALTER TABLE users ALTER COLUMN email SET NOT NULL", nowRequired},
	{Postgres, "ALTER TABLE users ALTER email DROP NOT NULL", nowNullable},
	{Postgres, "ALTER TABLE users ALTER COLUMN n DROP DEFAULT", noDefault},
	{Postgres, "ALTER TABLE users ALTER COLUMN n TYPE BIGINT", retyped},
	{Postgres, "ALTER TABLE users ALTER COLUMN n SET DATA TYPE TEXT USING n::text", retyped},
	{both, "CREATE OR REPLACE VIEW v AS SELECT 1", replaced},
	// What locks a table of PostgreSQL for long.
	{Postgres, "CREATE INDEX users_at ON users (at)", indexed},
	{Postgres, "CREATE TABLE IF NOT EXISTS t (n BIGINT); CREATE INDEX t_n ON t (n)", indexed},
	{Postgres, "ALTER TABLE users ADD COLUMN id2 BIGSERIAL", rewritten},
	{Postgres, "ALTER TABLE users ADD COLUMN n BIGINT GENERATED ALWAYS AS IDENTITY", rewritten},
	{Postgres, "ALTER TABLE users ADD COLUMN key UUID NOT NULL DEFAULT gen_random_uuid()", rewritten},
	{Postgres, "ALTER TABLE users ADD COLUMN key TEXT DEFAULT 'a' || random()", rewritten},
	{Postgres, "ALTER TABLE users ADD COLUMN org BIGINT REFERENCES orgs", referencing},
	// What cannot be seen through.
	{Postgres, "DO $$ BEGIN EXECUTE 'DROP TABLE users'; END $$", notKnownSafe},
	{both, "VACUUM FULL users", notKnownSafe},
	{Postgres, "ALTER TABLE users ENABLE ROW LEVEL SECURITY", notKnownSafe},
	{Postgres, "ALTER TABLE users SET SCHEMA other", notKnownSafe},
	{Postgres, "ALTER TABLE users ADD c NUMERIC(1, DROP COLUMN email", notKnownSafe},
	{Postgres, "LOCK TABLE users", notKnownSafe},
	{both, "SELECT 1; DROP DATABASE shop", dropped},
	{SQLite, "SELECT $a$; DROP TABLE users; SELECT $a$", dropped},
	{SQLite, `SELECT '\'; DROP TABLE users; SELECT '\'`, dropped},
	{Postgres, `SELECT '\'; DROP TABLE users; SELECT '\'`, dropped},
	{Postgres, "SELECT a$$b; DROP TABLE users; SELECT c$$d", dropped},
	{SQLite, "SELECT [']; DROP TABLE users; --']", dropped},
}

func TestBreaking(t *testing.T) {
	t.Parallel()
	for _, tt := range corpus {
		for _, dialect := range []Dialect{Postgres, SQLite} {
			if tt.dialect != both && tt.dialect != dialect {
				continue
			}
			all, err := statements(tt.sql, dialect)
			if err != nil {
				t.Errorf("%s: %s: %v", dialect, tt.sql, err)
			}
			got, r := "", review{dialect, map[string]bool{}}
			for _, s := range all {
				if got = r.breaks(s.norm); got != "" {
					break
				}
			}
			if got != tt.want {
				t.Errorf("%s: %s\nis %q, want %q", dialect, tt.sql, got, tt.want)
			}
		}
	}
}

func TestStatementsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dialect Dialect
		sql     string
		want    string
	}{
		{both, "SELECT 1;\nSELECT 'a", "line 2: \"'a\" does not end"},
		{both, "/* a", `line 1: "/* a" does not end`},
		{both, `SELECT "a`, `line 1: "\"a" does not end`},
		{SQLite, "SELECT [a", `line 1: "[a" does not end`},
		{SQLite, "SELECT `a", "line 1: \"`a\" does not end"},
		{Postgres, "SELECT $a$ $b$", `line 1: "$a$ $b$" does not end`},
		{Postgres, `SELECT E'\'`, `line 1: "E'\\'" does not end`},
		{Postgres, "/* a /* b */ c */", `line 1: "/* a /* b */ c */" does not end`},
	} {
		for _, dialect := range []Dialect{Postgres, SQLite} {
			if tt.dialect != both && tt.dialect != dialect {
				continue
			}
			if _, err := statements(tt.sql, dialect); fmt.Sprint(err) != tt.want {
				t.Errorf("%s: %s: got %v, want %s", dialect, tt.sql, err, tt.want)
			}
		}
	}
}

func TestCheckMigrations(t *testing.T) {
	t.Parallel()
	const up, safe = "-- +goose Up\n", "-- +goose Up\nALTER TABLE a ADD COLUMN m BIGINT;\n"
	const hint = "; or mark the file with -- kaptar:contract NUMBER REASON, once no version that it breaks runs any more"
	for name, tt := range map[string]struct {
		text string
		want string // of 2_b.sql, on PostgreSQL
	}{
		"safe":        {safe + "-- +goose Down\nDROP TABLE a;\n", ""},
		"breaks":      {"\r\n" + safe + "ALTER TABLE a\r\n  DROP COLUMN n;\n\nDROP TABLE\nb;", "2_b.sql:4: ALTER TABLE a DROP COLUMN n: " + dropped + hint + "|2_b.sql:7: DROP TABLE b: " + dropped + hint},
		"contract":    {"-- kaptar:contract 1 nobody has read n since 1\n" + up + "ALTER TABLE a DROP COLUMN n;", ""},
		"own number":  {up + "--kaptar:contract 2 nobody\nDROP TABLE a;", ""},
		"no reason":   {"-- kaptar:contract 1\n" + up + "DROP TABLE a;", `2_b.sql: "-- kaptar:contract 1": expected -- kaptar:contract NUMBER REASON, with the number of this migration or one before`},
		"no number":   {"-- kaptar:contract nobody reads it\n" + up + "DROP TABLE a;", `2_b.sql: "-- kaptar:contract nobody reads it": expected`},
		"later":       {"-- kaptar:contract 3 who knows\n" + up + "DROP TABLE a;", `2_b.sql: "-- kaptar:contract 3 who knows": expected`},
		"misspelt":    {"-- kaptar:contact 1 nobody\n" + up + "DROP TABLE a;", `2_b.sql: "-- kaptar:contact 1 nobody": expected`},
		"without end": {up + "SELECT 'a", "2_b.sql: after -- +goose Up: line 2: \"'a\" does not end"},
	} {
		m := fstest.MapFS{
			"migrations/postgres/1_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n BIGINT);\nCREATE INDEX a_n ON a (n);\n")},
			"migrations/postgres/2_b.sql": {Data: []byte(tt.text)},
		}
		err := CheckMigrations(m)
		lines := strings.Split(fmt.Sprint(err), "\n")
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := strings.Split(tt.want, "|")
		if !slices.EqualFunc(lines, want, func(got, want string) bool {
			return strings.HasPrefix(got, "sqldb: migrate postgres: "+want)
		}) {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, tt.want)
		}
	}
	if err := CheckMigrations(fstest.MapFS{}); err == nil || !strings.HasPrefix(err.Error(), "sqldb: migrate: no folder migrations/sqlite: ") {
		t.Errorf("no migrations: %v", err)
	}
}

// FuzzBreaking looks for text that one reading finds harmless although a DROP stands in it as plain as
// can be, and for panics.
func FuzzBreaking(f *testing.F) {
	for _, tt := range corpus {
		f.Add(tt.sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		for _, dialect := range []Dialect{Postgres, SQLite} {
			all, err := statements(sql, dialect)
			if err != nil {
				continue
			}
			r, length := review{dialect, map[string]bool{}}, 0
			for _, s := range all {
				r.breaks(s.norm)
				if length += len(s.text); s.line < 1 || s.line > 1+strings.Count(sql, "\n") || s.norm == "" {
					t.Errorf("%s: %q: statement %+v", dialect, sql, s)
				}
				again, err := statements(s.text, dialect)
				if err != nil || len(again) != 1 || again[0].norm != s.norm {
					t.Errorf("%s: %q read again is %v, %v", dialect, s.text, again, err)
				}
			}
			if length > len(sql) {
				t.Errorf("%s: %q: the statements are longer: %v", dialect, sql, all)
			}
			// What is whole can be followed by something else.
			more, err := statements(sql+"\n;DROP TABLE users_of_v1", dialect)
			if err != nil || len(more) != len(all)+1 || r.breaks(more[len(all)].norm) != dropped {
				t.Errorf("%s: after %q a DROP is not seen: %v, %v", dialect, sql, more, err)
			}
		}
	})
}
