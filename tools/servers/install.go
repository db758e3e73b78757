package main

import (
	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/servers"
)

func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install [name...]",
		Short: "get what is missing",
		Long: `Says what is missing and gets it: Debian packages as root or by sudo without a password, Kafka's jars by Maven,
Consul, Jaeger, Prometheus and kube-apiserver built from tools/, and NATS in the version of go.mod. What is fetched and built
lies in the user's cache folder. Besides engines a name is python, what test/interop needs; curl; or cc, the C compiler
of the race detector. Without a name all of them are installed.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = servers.Installable()
			}
			return servers.Install(cmd.Context(), cmd.OutOrStdout(), args...)
		},
	}
}
