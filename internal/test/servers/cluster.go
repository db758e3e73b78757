package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// ClusterRuns returns nil where package cluster can start a Kubernetes cluster: for root on a Linux
// with control groups of version 1. Elsewhere it says what is missing.
func ClusterRuns() error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("servers: a cluster takes Linux and root, for its namespaces")
	}
	for _, controller := range []string{"cpu", "cpuset", "devices", "memory", "pids"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", controller, "cgroup.procs")); err != nil {
			return fmt.Errorf("servers: a cluster takes control groups of version 1: %w", err)
		}
	}
	return nil
}

// Cluster returns where the parts of a cluster lie: the file with all programs of Kubernetes, of
// which the first argument chooses one, and the folder of what runs in it, with pause, coredns,
// rollouts-controller and the manifests of Argo Rollouts, install.yaml. Its error wraps ErrMissing.
func Cluster() (kubernetes, addons string, err error) {
	if err := Find("cluster"); err != nil {
		return "", "", err
	}
	if kubernetes, err = kubernetesProduct().find(); err == nil {
		addons, err = addonsProduct().find()
	}
	return kubernetes, addons, err
}

func addonsProduct() product {
	const rollouts = "github.com/argoproj/argo-rollouts"
	p := tool("addons", "./coredns", "./pause", rollouts+"/cmd/rollouts-controller")
	p.program, p.files = "", []string{rollouts + "//manifests/install.yaml"}
	p.sources = append(p.sources, "tools/addons/coredns/main.go", "tools/addons/pause/main.go")
	return p
}

// cluster is what package cluster runs, besides the engine Kubernetes.
func cluster() recipe {
	r := recipe{
		needs: []string{"etcd", "containerd", "ctr", "runc", "iptables", "conntrack", "ip"}, product: addonsProduct(), minutes: 3.5, gigabytes: 2.5,
		debian: []debianPackage{
			{"etcd-server", onPath("etcd")},
			{"containerd", onPath("containerd")},
			{"runc", onPath("runc")},
			{"iptables", onPath("iptables")},
			{"conntrack", onPath("conntrack")},
			{"iproute2", onPath("ip")},
			{"containernetworking-plugins", func() bool { _, err := os.Stat(ClusterPlugins); return err == nil }},
		},
	}
	r.find = func() (string, error) {
		if _, err := os.Stat(ClusterPlugins); err != nil {
			return "", err
		}
		if _, err := kubernetesProduct().find(); err != nil {
			return "", err
		}
		return r.product.find()
	}
	r.fetch = func(ctx context.Context, progress func(line string)) error {
		if err := kubernetesProduct().fetch(ctx, progress); err != nil { // one at a time: each takes all processors
			return err
		}
		return r.product.fetch(ctx, progress)
	}
	return r
}

// ClusterPlugins is where Debian puts the programs that give pods their network.
const ClusterPlugins = "/usr/lib/cni"
