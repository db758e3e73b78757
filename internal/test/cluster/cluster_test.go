package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/cluster"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestMain(m *testing.M) {
	cluster.Init()
	os.Exit(m.Run())
}

// client calls addresses in the cluster's network.
func client(c *cluster.Cluster) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
}

func get(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(text)), err
}

// eventually calls f until it returns nil, for a minute at most.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	tick, late := time.NewTicker(100*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(err)
		}
	}
}

const dns = `apiVersion: v1
kind: Service
metadata: {name: dns, namespace: kube-system}
spec:
  type: NodePort
  selector: {k8s-app: kube-dns}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30053}]
`

// TestStart: two clusters side by side have the same names, addresses and ports. A pod is reached by
// the node's port, from a container that was killed a new one comes, and logs and exec go through.
func TestStart(t *testing.T) {
	t.Parallel()
	both := []*cluster.Cluster{servertest.Cluster(t), servertest.Cluster(t)}
	for i, c := range both {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			if _, err := c.Kubectl(t.Context(), dns, "apply", "-f", "-"); err != nil {
				t.Fatal(err)
			}
			answers := func() error {
				got, err := get(t, client(c), "http://127.0.0.1:30053/health")
				if err == nil && got != "OK" {
					err = fmt.Errorf("got %q, want OK", got)
				}
				return err
			}
			eventually(t, answers)
			status := func(path string) string {
				out, err := c.Kubectl(t.Context(), "", "-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.containerStatuses[0]."+path+"}")
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			if err := c.KillContainer(t.Context(), status("containerID")); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if status("restartCount") == "0" || status("ready") != "true" {
					return errors.New("no new container is ready")
				}
				return answers()
			})
			out, err := c.Kubectl(t.Context(), "", "-n", "kube-system", "logs", "deployment/coredns")
			if err != nil || !strings.Contains(out, "CoreDNS-1.14.0") {
				t.Errorf("the logs of coredns are %q, %v", out, err)
			}
			dial(t, c)
			if out, err := c.Kubectl(t.Context(), "", "version"); err != nil || !strings.Contains(out, "Server Version: v1.34.3") {
				t.Errorf("kubectl version = %q, %v", out, err)
			}
			if _, err := c.Kubectl(t.Context(), "", "get", "nothing"); err == nil || !strings.Contains(err.Error(), `kubectl get nothing: exit status 1: error: the server doesn't have a resource type "nothing"`) {
				t.Errorf("kubectl get nothing = %v, want what kubectl says", err)
			}
		})
	}
}

// dial sees that what cannot be reached is an error, and that no thread stays inside.
func dial(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if conn, err := c.Dial(ctx, "tcp", "127.0.0.1:1"); err == nil {
		t.Errorf("Dial of a port where nothing listens = %v", conn)
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // another test may dial just now
		threads, err := filepath.Glob("/proc/self/task/*/ns/net")
		for _, thread := range threads {
			if got, gone := os.Readlink(thread); gone == nil && got != here {
				err = fmt.Errorf("%s is in %s, want %s", thread, got, here)
			}
		}
		return err
	})
}

// lingerEnv makes TestRole start a cluster and wait to be killed.
const lingerEnv = "CLUSTER_LINGER"

// TestRole is the child's side of TestNothingIsLeftBehind.
func TestRole(t *testing.T) {
	if os.Getenv(lingerEnv) == "" {
		return // run as a test of its own it has nothing to say
	}
	servertest.Cluster(t)
	fmt.Println("started")
	select {}
}

// TestNothingIsLeftBehind: a process that is killed takes its cluster with it, with its processes,
// files and control groups.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	if err := servers.ClusterRuns(); err != nil {
		t.Skip(err)
	}
	servertest.Need(t, "cluster")
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v")
	cmd.Env = append(os.Environ(), lingerEnv+"=1", "TMPDIR="+tmp)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := ""
	for lines := bufio.NewScanner(out); !strings.HasPrefix(said, "started") && lines.Scan(); {
		said = lines.Text() + "\n" + said
	}
	dirs, err := filepath.Glob(filepath.Join(tmp, "kaptar-cluster-*"))
	if err != nil || len(dirs) != 1 {
		_ = cmd.Process.Kill()
		t.Fatalf("it has the folders %q, %v; it said\n%s", dirs, err, said)
	}
	left := func() []string {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dirs[0]))
		files, _ := filepath.Glob(filepath.Join(tmp, "*"))
		return append(append(groups, files...), processes(dirs[0])...)
	}
	if all := left(); len(all) < 15 { // 9 groups, the folder, 8 processes
		t.Errorf("while it runs there are %q, want more", all)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, func() error {
		if all := left(); len(all) > 0 {
			return fmt.Errorf("left behind: %q", all)
		}
		return nil
	})
}

// processes returns those that were started for the cluster in dir.
func processes(dir string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if text, _ := os.ReadFile(path); strings.Contains(string(text), dir) {
			found = append(found, path)
		}
	}
	return found
}
