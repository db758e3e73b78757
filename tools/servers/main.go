// Command servers installs and runs the real servers that kaptar works with.
//
//	go run ./tools/servers install          # everything that is missing
//	go run ./tools/servers start redis kafka # in the foreground, until Ctrl-C
//	go run ./tools/servers clean            # removes their data
//
// It is for people and for CI. Tests start their servers themselves.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/servers"
)

func main() {
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
		Short: "install and run PostgreSQL, Kafka, RabbitMQ, NATS, Consul, Redis, Prometheus, Jaeger and Kubernetes' API server",
		Long: `Installs and runs the real servers that kaptar works with, without containers. An engine is one of
postgres, kafka, rabbitmq, nats, consul, redis, prometheus, jaeger, kubernetes. Without a name a command means all of them.`,
		Example: `  go run ./tools/servers install
  go run ./tools/servers start redis consul
  go run ./tools/servers clean`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(installCommand(), startCommand(), cleanCommand())
	return root
}

// engines returns those of the names, each once, or all.
func engines(names []string) ([]servers.Engine, error) {
	if len(names) == 0 {
		return servers.Engines(), nil
	}
	var out []servers.Engine
	seen := map[servers.Engine]bool{}
	for _, name := range names {
		e, err := servers.Parse(name)
		if err != nil {
			return nil, err
		}
		if !seen[e] {
			seen[e] = true
			out = append(out, e)
		}
	}
	return out, nil
}
