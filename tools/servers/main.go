// Command servers installs and runs the real servers that kaptar works with.
//
//	go run ./tools/servers install          # everything that is missing
//	go run ./tools/servers start redis kafka # in the foreground, until Ctrl-C
//	go run ./tools/servers clean            # removes their data
//	go run ./tools/servers cluster          # a Kubernetes with the shop, until Ctrl-C
//
// It is for people and for CI. Tests start their servers themselves.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/cluster"
	"github.com/kaptar/kaptar/internal/test/servers"
)

func main() {
	cluster.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "servers",
		Short: "install and run PostgreSQL, Kafka, RabbitMQ, NATS, Consul, Redis, Prometheus, Jaeger, VictoriaLogs and Kubernetes' API server",
		Long: `Installs and runs the real servers that kaptar works with, without containers. An engine is one of
postgres, kafka, rabbitmq, nats, consul, redis, prometheus, jaeger, victorialogs, kubernetes. Without a name a command means all of them.`,
		Example: `  go run ./tools/servers install
  go run ./tools/servers start redis consul
  go run ./tools/servers clean`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(&cobra.Command{
		Use:   "install [name...]",
		Short: "get what is missing",
		Long: `Says what is missing and gets it: Debian packages as root or by sudo without a password, Kafka's jars by Maven,
Consul, Jaeger, VictoriaLogs, Prometheus and Kubernetes built from tools/, and NATS in the version of go.mod. What is
fetched and built lies in the user's cache folder. Besides engines a name is python, what test/interop needs; curl; cc, the C compiler of the
race detector; or cluster, what the command cluster needs. Without a name all of them are installed, the last one where it
can run.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = servers.Installable()
			}
			return servers.Install(cmd.Context(), cmd.OutOrStdout(), args...)
		},
	}, withData(&cobra.Command{
		Use:   "start [engine...]",
		Short: "run servers on their usual ports until Ctrl-C",
		Long: `Runs servers on their usual ports on 127.0.0.1, until Ctrl-C. Their data stays in the folder and is there at the next
start, also after a crash; the command clean removes it. A server that ends by itself is named with the end of its log, and the
others go on. PostgreSQL has the databases of deploy/postgres, and Prometheus runs with deploy/prometheus and the Consul of
this command. As root they run as the user nobody, who has to be able to reach the folder.`,
	}, func(ctx context.Context, out io.Writer, dir string, chosen []servers.Engine) error {
		usual := func(e servers.Engine) int { return servers.UsualPorts(e)[""] }
		return (&foreground{out: out, dir: dir, deploy: "deploy", port: usual}).run(ctx, chosen)
	}), withData(&cobra.Command{
		Use:   "clean [engine...]",
		Short: "remove the data of servers that do not run",
	}, func(_ context.Context, out io.Writer, dir string, chosen []servers.Engine) error {
		return clean(out, dir, chosen)
	}), clusterCommand())
	return root
}

// withData lets cmd run f for engines whose data lies in a folder, each in one of its own.
func withData(cmd *cobra.Command, f func(ctx context.Context, out io.Writer, dir string, chosen []servers.Engine) error) *cobra.Command {
	dir := cmd.Flags().String("dir", ".kaptar/servers", "`folder` for the servers' data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		chosen, err := engines(args)
		if err != nil {
			return err
		}
		return f(cmd.Context(), cmd.OutOrStdout(), *dir, chosen)
	}
	return cmd
}

// engines returns those of the names, each once, or all.
func engines(names []string) ([]servers.Engine, error) {
	if len(names) == 0 {
		return servers.Engines(), nil
	}
	var out []servers.Engine
	for _, name := range names {
		e, err := servers.Parse(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, nil
}
