// Package cluster starts a real Kubernetes of one node on this machine, in about 8 s: API server,
// controllers, scheduler, kubelet with containerd and runc, kube-proxy and CoreDNS. It takes no
// registry of images, no container engine and no network.
//
//	func TestMain(m *testing.M) { cluster.Init(); os.Exit(m.Run()) }
//
//	c, err := cluster.Start(ctx, nil)
//	…
//	defer c.Close()
//	out, err := c.Kubectl(ctx, manifests, "apply", "-f", "-")
//
// A cluster has namespaces of its own for processes, mounts and the network, so that several run
// side by side and none sees the machine's. The first process in them is this program, started once
// more: see Init. With it everything else ends, and it ends with the process that called Start,
// also when that is killed. What clusters share with the machine are control groups; Close removes
// its own, and the first process does when Close was not called.
//
// It takes what servers.ClusterRuns says, and what "go run ./tools/servers install cluster" gets.
// NetworkPolicy is not enforced: the network's plugin does not know it. There is no metrics server.
package cluster
