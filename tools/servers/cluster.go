package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/test/cluster"
	"github.com/kaptar/kaptar/internal/test/servers"
)

func clusterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cluster", Short: "run a Kubernetes of one node with the shop until Ctrl-C", Args: cobra.NoArgs,
		Long: `Runs a Kubernetes of one node on this machine, with real containers, and in it the shop of this checkout as
deploy/kubernetes/overlays/local has it, until Ctrl-C. It takes Linux and root, and nothing of it is left afterwards.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCluster(cmd.Context(), cmd.OutOrStdout()) },
	}
}

const clusterReady = `
the shop        http://%s/v1/stock/tea, with X-Api-Key: %s
kubectl         alias kubectl='%s kubectl --kubeconfig %s'
                kubectl -n shop get pods
version 2       go run ./tools/image -version v2 -tags user_v2
                CONTAINERD_ADDRESS=%s ctr -n k8s.io images import .tmp/shop.tar
                kubectl apply -k deploy/kubernetes/overlays/canary
                kubectl -n shop exec deployment/gateway -- /shop rollout start user-service v2 --watch
ready after %.0f s; Ctrl-C ends it
`

// runCluster runs a cluster with the shop until ctx ends.
func runCluster(ctx context.Context, out io.Writer) (err error) {
	began := time.Now()
	say := func(what string) { fmt.Fprintf(out, "%5.0f s  %s\n", time.Since(began).Seconds(), what) }
	say("starting the cluster")
	c, err := cluster.Start(ctx)
	if err != nil {
		if errors.Is(err, servers.ErrMissing) {
			err = fmt.Errorf("%w; type: go run ./tools/servers install cluster", err)
		}
		return err
	}
	defer func() {
		say("stopping")
		err = errors.Join(err, c.Close())
	}()
	say("building the shop and applying its manifests")
	if err := c.Shop(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C, before it was up
		}
		return err
	}
	address, err := c.Forward(ctx, "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", cluster.ShopPort))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, clusterReady, address, cluster.OperatorKey, c.Programs(), c.Kubeconfig(), c.Containerd(), time.Since(began).Seconds())
	<-ctx.Done()
	return nil
}
