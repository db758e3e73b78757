package export

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/rollout"
)

// Command is the subcommand export of rollout.Command. It writes YAML to standard output and
// connects to nothing. Exit codes: 0, or 2 for a wrong command line or plan.
func Command() kaptar.Command {
	return kaptar.Command{
		Name: "export", Help: "Write a plan for Argo Rollouts, or weights for the Gateway API",
		Run: func(ctx context.Context, call *kaptar.Call) int {
			return cli.Run(ctx, command(call.Stdout), call.Args, call.Stdout, call.Stderr)
		},
	}
}

const long = `Write a plan for Argo Rollouts 1.9, as YAML for kubectl apply: a Rollout of the Deployment SERVICE
with an AnalysisTemplate. With --gateway the calls are shared by an HTTPRoute instead of by the number
of instances. With --weights only an HTTPRoute with these weights is written.`

func command(stdout io.Writer) *cobra.Command {
	var o Options
	file, path := "", cli.Program()+" rollout export"
	var weights map[string]string
	cmd := &cobra.Command{
		Use: "export SERVICE", Long: long, SilenceErrors: true, SilenceUsage: true, Args: cli.Args,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: path},
		Example:     "  " + path + " user-service --plan plan.yml --namespace shop > rollout.yaml\n  " + path + " user-service --gateway edge --weights v1=95,v2=5",
	}
	cmd.SetFlagErrorFunc(cli.FlagError)
	cmd.Flags().StringVar(&file, "plan", "", "`file` with the plan; default the built-in one")
	cmd.Flags().StringVar(&o.Namespace, "namespace", "", "`name` of the namespace of all objects")
	cmd.Flags().IntVar(&o.Replicas, "replicas", 0, "`number` of instances (default 5)")
	cmd.Flags().StringVar(&o.Prometheus, "prometheus", "", "`address` that Argo Rollouts asks (default http://prometheus:9090)")
	cmd.Flags().StringVar(&o.Gateway, "gateway", "", "`name` of the Gateway that shares the calls")
	cmd.Flags().IntVar(&o.Port, "port", 0, "`port` of the Services (default 80)")
	cmd.Flags().StringToStringVar(&weights, "weights", nil, "`version=percent,…` for an HTTPRoute alone")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		o.Service = args[0]
		text, err := o.text(file, weights)
		if err != nil {
			return cli.Usagef("%w", err)
		}
		_, err = stdout.Write(text)
		return err
	}
	return cmd
}

func (o Options) text(file string, weights map[string]string) (_ []byte, err error) {
	if len(weights) > 0 {
		shares := map[string]int{}
		for version := range weights {
			if shares[version], err = strconv.Atoi(strings.TrimSuffix(weights[version], "%")); err != nil {
				return nil, fmt.Errorf("export: weight %q of version %s: expected a number of per cent", weights[version], version)
			}
		}
		return HTTPRoute(shares, o)
	}
	plan := rollout.Plan{}
	if file != "" {
		if plan, err = rollout.ReadPlan(file); err != nil {
			return nil, err
		}
	}
	return Argo(plan, o)
}
