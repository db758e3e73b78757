package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
)

func postgres() description {
	return description{
		example: "postgres://postgres:postgres@127.0.0.1:5432/postgres?sslmode=disable",
		ports:   []port{{usual: 5432}},
		recipe:  recipe{find: findPostgres, debian: []debianPackage{{name: "postgresql"}}, minutes: 0.3, gigabytes: 0.1},
		prepare: preparePostgres,
		command: func(s *Server) command {
			return command{
				args: []string{
					filepath.Join(s.program, "postgres"), "-D", s.path("data"), "-p", strconv.Itoa(s.ports[""]),
					"-c", "config_file=" + s.path("postgresql.conf"),
				},
			}
		},
		url: func(s *Server) string {
			mode := "disable"
			if _, files := s.client(""); files.On {
				mode = "verify-full&sslrootcert=" + files.CA + "&sslcert=" + files.Cert + "&sslkey=" + files.Key
			}
			return "postgres://postgres:postgres@" + s.Addr("") + "/postgres?sslmode=" + mode
		},
		ready: func(ctx context.Context, s *Server) error { return Execute(ctx, s.URL(), "SELECT 1") },
	}
}

// findPostgres returns the folder with initdb and postgres: on the PATH, or the newest of Debian's.
func findPostgres() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "postgres")); err == nil {
			return filepath.Dir(path), nil
		}
	}
	if _, err := exec.LookPath("psql"); err != nil { // of Debian's packages, which leave initdb off the PATH
		return "", err
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("initdb is neither on the PATH nor in /usr/lib/postgresql/*/bin")
	}
	version := func(initdb string) int {
		v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
		return v
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

func preparePostgres(ctx context.Context, s *Server) error {
	if _, err := os.Stat(s.path("data/PG_VERSION")); err != nil {
		if err := s.write("password", "postgres"); err != nil {
			return err
		}
		if err := s.run(ctx, filepath.Join(s.program, "initdb"), "-D", s.path("data"), "-U", "postgres",
			"-A", "scram-sha-256", "--pwfile", s.path("password"), "-E", "UTF8", "--no-sync"); err != nil {
			return err
		}
	}
	// After a crash of the machine another process may have the id in it, and PostgreSQL would take
	// that for a server of its own.
	if err := os.Remove(s.path("data/postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	access, secure := s.path("data/pg_hba.conf"), ""
	if s.opts.TLS != "" {
		access = s.path("tls_hba.conf")
		if err := s.write("tls_hba.conf", "hostssl all postgres 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"); err != nil {
			return err
		}
		secure = fmt.Sprintf("ssl = on\nssl_cert_file = '%s'\nssl_key_file = '%s'\nssl_ca_file = '%s'\n",
			s.path("server.pem"), s.path("server.pem"), s.path("ca.pem"))
	}
	// The file that initdb made stays as it is, for a later start adds nothing to it.
	return s.write("postgresql.conf", fmt.Sprintf(`include '%s'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 64MB
max_connections = 200
hba_file = '%s'
ident_file = '%s'
%s%s
`, s.path("data/postgresql.conf"), access, s.path("data/pg_ident.conf"), secure, s.opts.Config))
}

// Execute runs statements, each on its own, on the PostgreSQL database at a URL.
func Execute(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if err == nil {
			_, err = conn.Exec(ctx, statement)
		}
	}
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// NewDatabase makes an empty database on the PostgreSQL server at a URL, instead of one of that name
// that is there, and returns its URL.
func NewDatabase(ctx context.Context, server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("servers: the URL of PostgreSQL cannot be parsed") // err shows its password
	}
	u.Path = "/" + name
	return u.String(), Execute(ctx, server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)", "CREATE DATABASE "+name+" TEMPLATE template0")
}
