package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// A foreground runs servers until its context ends.
type foreground struct {
	out    io.Writer
	dir    string                   // for their data
	deploy string                   // the folder deploy of the repository
	port   func(servers.Engine) int // 0: a free one

	mu sync.Mutex // of out
}

// run starts the engines, says where they are and which of them end by themselves, and stops them
// when ctx ends.
func (f *foreground) run(ctx context.Context, chosen []servers.Engine) (err error) {
	running := make([]*servers.Server, len(chosen))
	defer func() { err = errors.Join(err, stop(running)) }()
	// Prometheus needs to know where Consul is.
	late := slices.Index(chosen, servers.Prometheus)
	var wg sync.WaitGroup
	errs := make([]error, len(chosen))
	for i, e := range chosen {
		if i != late {
			wg.Go(func() { running[i], errs[i] = f.start(ctx, e, "") })
		}
	}
	wg.Wait()
	if late >= 0 {
		running[late], errs[late] = f.startPrometheus(ctx, running)
	}
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C, before all were up
		}
		return err
	}
	databases, err := f.createDatabases(ctx, running)
	if err != nil {
		return err
	}
	if err := table(f.out, running, databases); err != nil {
		return err
	}
	err = f.watch(ctx, running)
	fmt.Fprintln(f.out, "stopping")
	return err
}

func (f *foreground) start(ctx context.Context, e servers.Engine, config string) (*servers.Server, error) {
	begun := time.Now()
	s, err := servers.Start(ctx, e, &servers.Options{Dir: filepath.Join(f.dir, string(e)), Port: f.port(e), Config: config})
	if errors.Is(err, servers.ErrMissing) {
		err = fmt.Errorf("%w; type: go run ./tools/servers install %s", err, e)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		fmt.Fprintf(f.out, "%-10s started in %.1f s\n", e, time.Since(begun).Seconds())
	}
	return s, err
}

// startPrometheus starts it with a copy of deploy/prometheus that names the Consul that runs here,
// or would on its usual port.
func (f *foreground) startPrometheus(ctx context.Context, running []*servers.Server) (*servers.Server, error) {
	consul := fmt.Sprintf("127.0.0.1:%d", servers.UsualPorts(servers.Consul)[""])
	if i := slices.IndexFunc(running, func(s *servers.Server) bool { return s != nil && s.Engine() == servers.Consul }); i >= 0 {
		consul = running[i].Addr("")
	}
	copied, err := os.MkdirTemp("", "kaptar-prometheus-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(copied) }() // it is closed to the server's user, who gets a copy, or read at the start
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(f.deploy, "prometheus"))); err != nil {
		return nil, err
	}
	config := filepath.Join(copied, "prometheus.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(string(text), "consul:8500", consul)), 0o600); err != nil {
		return nil, err
	}
	return f.start(ctx, servers.Prometheus, config)
}

// createDatabases runs deploy/postgres on a PostgreSQL and returns the names of the databases.
func (f *foreground) createDatabases(ctx context.Context, running []*servers.Server) (names []string, err error) {
	i := slices.IndexFunc(running, func(s *servers.Server) bool { return s.Engine() == servers.Postgres })
	if i < 0 {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(f.deploy, "postgres", "databases.sql"))
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, running[i].URL())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, m := range createDatabase.FindAllStringSubmatch(string(text), -1) {
		var exists *pgconn.PgError
		if _, err := conn.Exec(ctx, m[0]); err != nil && (!errors.As(err, &exists) || exists.Code != duplicateDatabase) {
			return nil, fmt.Errorf("servers: %s: %w", m[0], err)
		}
		names = append(names, m[1])
	}
	return names, nil
}

var createDatabase = regexp.MustCompile(`(?m)^CREATE DATABASE (\w+)`)

const duplicateDatabase = "42P04" // PostgreSQL's code

// watch names each server that ends by itself, once, until ctx ends.
func (f *foreground) watch(ctx context.Context, running []*servers.Server) (err error) {
	ended := map[servers.Engine]bool{}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
		for _, s := range running {
			if ended[s.Engine()] || s.Running() {
				continue
			}
			ended[s.Engine()] = true
			log := strings.Split(strings.TrimSpace(s.Log()), "\n")
			fmt.Fprintf(f.out, "%s ENDED by itself; the others go on. The end of its log:\n%s\n", s.Engine(), strings.Join(log[max(0, len(log)-20):], "\n"))
			err = errors.Join(err, fmt.Errorf("servers: %s ended by itself", s.Engine()))
		}
	}
}

func stop(running []*servers.Server) error {
	errs := make([]error, len(running))
	var wg sync.WaitGroup
	for i, s := range running {
		if s != nil {
			wg.Go(func() { errs[i] = s.Close() })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// table prints where the servers are, and the settings that lead a program of kaptar to them.
func table(out io.Writer, running []*servers.Server, databases []string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w)
	for _, s := range running {
		fmt.Fprintf(w, "%s\t%s\n", s.Engine(), s.URL())
		for _, name := range s.Names() {
			fmt.Fprintf(w, "\t%s %s\n", name, s.Addr(name))
		}
	}
	fmt.Fprintln(w)
	set := map[string]bool{}
	for _, s := range running {
		if s.Engine() == servers.Postgres { // a database is one service's
			for _, name := range databases {
				fmt.Fprintf(w, "export %s_DATABASE_URL='%s'\n", strings.ToUpper(name), strings.Replace(s.URL(), "/postgres?", "/"+name+"?", 1))
			}
		}
		name, value := setting(s)
		if name == "" {
			continue
		}
		comment := ""
		if set[name] { // of several brokers and registries a program uses one
			comment = "# or: "
		}
		set[name] = true
		fmt.Fprintf(w, "%sexport %s='%s'\n", comment, name, value)
	}
	fmt.Fprint(w, "\nready; Ctrl-C stops them and keeps their data\n")
	return w.Flush()
}

// setting returns the environment variable that leads a program to the server, if there is one.
func setting(s *servers.Server) (name, value string) {
	switch s.Engine() {
	case servers.Kafka, servers.RabbitMQ, servers.NATS:
		return "BROKER_URL", s.URL()
	case servers.Consul, servers.Kubernetes:
		return "DISCOVERY_URL", s.URL()
	case servers.Redis:
		return "REDIS_URL", s.URL()
	case servers.Jaeger:
		return "OTEL_EXPORTER_OTLP_ENDPOINT", "http://" + s.Addr("otlp-grpc")
	case servers.VictoriaLogs:
		return "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", s.URL() + "/insert/opentelemetry/v1/logs"
	}
	return "", ""
}

// clean removes data. It removes nothing but folders that a start made.
func clean(out io.Writer, dir string, chosen []servers.Engine) error {
	var errs []error
	for _, e := range chosen {
		path := filepath.Join(dir, string(e))
		found, err := os.ReadDir(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && !slices.ContainsFunc(found, func(f os.DirEntry) bool { return f.Name() == "ports.json" }) {
			err = fmt.Errorf("servers: %s was not made by this command: it has no ports.json", path)
		}
		if err == nil {
			err = servers.Idle(path)
		}
		if err == nil {
			err = os.RemoveAll(path)
		}
		if err == nil {
			fmt.Fprintf(out, "%-10s removed %s\n", e, path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
