package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// defaultDir is where the data lies, one folder an engine.
const defaultDir = ".kaptar/servers"

func startCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "start [engine...]",
		Short: "run servers on their usual ports until Ctrl-C",
		Long: `Runs servers on their usual ports on 127.0.0.1, until Ctrl-C. Their data stays in the folder and is there at the next
start; the command clean removes it. As root they run as the user nobody, who has to be able to reach the folder.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := engines(args)
			if err != nil {
				return err
			}
			usual := func(e servers.Engine) int { return servers.UsualPorts(e)[""] }
			return run(cmd.Context(), cmd.OutOrStdout(), dir, chosen, usual)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`folder` for the servers' data")
	return cmd
}

func cleanCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "clean [engine...]",
		Short: "remove the data of servers that do not run",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := engines(args)
			if err != nil {
				return err
			}
			return clean(cmd.OutOrStdout(), dir, chosen)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`folder` with the servers' data")
	return cmd
}

// run starts the engines, says where they are, and stops them when ctx ends.
func run(ctx context.Context, out io.Writer, dir string, chosen []servers.Engine, port func(servers.Engine) int) (err error) {
	running := make([]*servers.Server, len(chosen))
	defer func() { err = errors.Join(err, stop(running)) }()
	errs := make([]error, len(chosen))
	var (
		mu sync.Mutex // of out
		wg sync.WaitGroup
	)
	for i, e := range chosen {
		wg.Go(func() {
			start := time.Now()
			running[i], errs[i] = servers.Start(ctx, e, &servers.Options{Dir: filepath.Join(dir, string(e)), Port: port(e)})
			mu.Lock()
			defer mu.Unlock()
			if errs[i] == nil {
				fmt.Fprintf(out, "%-10s started in %.1f s\n", e, time.Since(start).Seconds())
			} else if errors.Is(errs[i], servers.ErrMissing) {
				errs[i] = fmt.Errorf("%w; type: go run ./tools/servers install %s", errs[i], e)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C, before all were up
		}
		return err
	}
	if err := table(out, running); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(out, "stopping")
	return nil
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
func table(out io.Writer, running []*servers.Server) error {
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
		if s.Engine() == servers.Postgres {
			fmt.Fprint(w, "# a database is one service's; for more: CREATE DATABASE orders, and export ORDER_SERVICE_DATABASE_URL='…/orders'\n")
		}
	}
	fmt.Fprint(w, "\nready; Ctrl-C stops them and keeps their data\n")
	return w.Flush()
}

// setting returns the environment variable that leads a program to the server, if there is one.
func setting(s *servers.Server) (name, value string) {
	switch s.Engine() {
	case servers.Postgres:
		return "DATABASE_URL", s.URL()
	case servers.Kafka, servers.RabbitMQ, servers.NATS:
		return "BROKER_URL", s.URL()
	case servers.Consul, servers.Kubernetes:
		return "DISCOVERY_URL", s.URL()
	case servers.Redis:
		return "REDIS_URL", s.URL()
	case servers.Jaeger:
		return "OTEL_EXPORTER_OTLP_ENDPOINT", "http://" + s.Addr("otlp-grpc")
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
