package cluster

import "path/filepath"

// first are the programs that ask nobody.
func (n *node) first() [][]string {
	at := func(name string) string { return filepath.Join(n.Dir, name) }
	return [][]string{
		{
			"etcd", "--data-dir=" + at("etcd"), "--logger=zap", "--log-level=warn", "--listen-peer-urls=http://127.0.0.1:0",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		},
		{"containerd", "--config", at("containerd.toml"), "--log-level", "info"},
		{
			n.Kubernetes, "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--advertise-address=" + nodeIP,
			"--secure-port=6443", "--tls-cert-file=" + at("ca.crt"), "--tls-private-key-file=" + at("key.pem"), "--token-auth-file=" + at("tokens.csv"),
			"--authorization-mode=Node,RBAC", "--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + at("key.pem"),
			"--service-account-signing-key-file=" + at("key.pem"), "--service-cluster-ip-range=" + serviceIPs, "--enable-priority-and-fairness=false",
			"--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP",
		},
	}
}

// second are those that ask the API server. Without more queries a second than usual the first
// service account would take 10 s.
func (n *node) second() [][]string {
	at := func(name string) string { return filepath.Join(n.Dir, name) }
	client := func(program string, more ...string) []string {
		conf := at(program + ".conf")
		return append([]string{
			n.Kubernetes, program, "--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
			"--leader-elect=false", "--bind-address=127.0.0.1", "--authentication-skip-lookup=true",
		}, more...)
	}
	return [][]string{
		client("kube-controller-manager", "--use-service-account-credentials=true", "--service-account-private-key-file="+at("key.pem"),
			"--root-ca-file="+at("ca.crt"), "--kube-api-qps=1000", "--kube-api-burst=1000", "--concurrent-deployment-syncs=2",
			"--horizontal-pod-autoscaler-sync-period=2s"),
		client("kube-scheduler"),
		{
			n.Kubernetes, "kubelet", "--config=" + at("kubelet.yaml"), "--kubeconfig=" + at("kubelet.conf"), "--root-dir=/var/lib/kubelet",
			"--hostname-override=" + nodeName, "--node-ip=" + nodeIP,
		},
		{n.Kubernetes, "kube-proxy", "--config=" + at("kube-proxy.yaml")},
	}
}
