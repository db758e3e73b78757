package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/servers"
)

func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install [engine...]",
		Short: "get what is missing",
		Long: `Gets what is missing: Debian packages as root or by sudo without a password, Kafka's files by Maven, and
Consul, Jaeger, Prometheus and kube-apiserver built from tools/, and NATS in the version of go.mod. What is fetched and built
lies in the user's cache folder. A cold build takes several minutes; everything else takes seconds. Besides engines there
is python: what test/interop needs.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := slices.DeleteFunc(slices.Clone(args), func(name string) bool { return name == string(python) })
			var chosen []servers.Engine
			if len(names) > 0 || len(args) == 0 {
				var err error
				if chosen, err = engines(names); err != nil {
					return err
				}
			}
			if len(names) < len(args) || len(args) == 0 {
				chosen = append(chosen, python)
			}
			return install(cmd.Context(), cmd.OutOrStdout(), chosen, get)
		},
	}
}

// python is what install gets beside engines.
const python servers.Engine = "python"

// get installs an engine, or python.
func get(ctx context.Context, e servers.Engine, progress io.Writer) error {
	if e == python {
		return servers.InstallPython(ctx, progress)
	}
	return servers.Install(ctx, e, progress)
}

type installer func(context.Context, servers.Engine, io.Writer) error

// install installs all at once: the builds go on beside the packages, which take turns. The first lines say what is done, the
// others how long each took.
func install(ctx context.Context, out io.Writer, chosen []servers.Engine, one installer) error {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		errs = make([]error, len(chosen))
	)
	for i, e := range chosen {
		wg.Go(func() {
			start := time.Now()
			errs[i] = one(ctx, e, &lines{mu: &mu, out: out, prefix: string(e)})
			result := "ok"
			if errs[i] != nil {
				result = "FAILED"
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(out, "%-10s %s, %.1f s\n", e, result, time.Since(start).Seconds())
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lines writes what an engine's installation says, one write a line.
type lines struct {
	mu     *sync.Mutex
	out    io.Writer
	prefix string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.out, "%-10s %s", l.prefix, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
