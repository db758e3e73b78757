package cluster

import (
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// The addresses are the same in each cluster: its network is its own.
const (
	nodeName   = "node1"
	nodeIP     = "10.244.0.1"
	apiServer  = nodeIP + ":6443"
	serviceIPs = "10.96.0.0/16"
)

// files are the configurations of the programs. In them DIR is the cluster's folder, GROUP its
// control group.
//
//go:embed files
var files embed.FS

// write writes the files of a new cluster, where the API server is reachable at api from outside,
// and returns the administrator's token.
func (c *Cluster) write(api string) (administrator string, err error) {
	key, certificate, err := servers.SelfSigned(nodeIP, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return "", err
	}
	texts := map[string]string{"key.pem": key, "ca.crt": certificate, "resolv.conf": ""}
	for _, user := range []struct{ file, name, groups, server string }{
		{"kube-controller-manager", "system:kube-controller-manager", "", apiServer},
		{"kube-scheduler", "system:kube-scheduler", "", apiServer},
		{"kubelet", "system:node:" + nodeName, "system:nodes", apiServer},
		{"kube-proxy", "system:kube-proxy", "", apiServer},
		{"admin", "admin", "system:masters", api},
	} {
		administrator = rand.Text()
		texts["tokens.csv"] += fmt.Sprintf("%s,%s,%s,%q\n", administrator, user.name, user.name, user.groups)
		texts[user.file+".conf"] = fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: kaptar, cluster: {server: "https://%s", certificate-authority: %s}}]
users: [{name: kaptar, user: {token: %s}}]
contexts: [{name: kaptar, context: {cluster: kaptar, user: kaptar}}]
current-context: kaptar
`, user.server, c.path("ca.crt"), administrator)
	}
	for _, name := range []string{"kubelet.yaml", "kube-proxy.yaml", "containerd.toml", "net.d/kaptar.conflist"} {
		text, err := files.ReadFile("files/" + filepath.Base(name))
		if err != nil {
			return "", err
		}
		texts[name] = strings.NewReplacer("DIR", c.dir, "GROUP", group(c.dir), "PLUGINS", servers.ClusterPlugins).Replace(string(text))
	}
	err = os.Mkdir(c.path("net.d"), 0o755)
	for name, text := range texts {
		err = errors.Join(err, os.WriteFile(c.path(name), []byte(text), 0o600))
	}
	return administrator, err
}

// group is the name of the control groups of the cluster in dir. Kubelets that share one remove
// each other's pods.
func group(dir string) string { return filepath.Base(dir) }
