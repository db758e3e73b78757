package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

const (
	startTimeout = 90 * time.Second // 8 s on a machine that has nothing else to do
	logTail      = 4 << 10          // of each program
)

// A Cluster is a running Kubernetes. Its methods may be called concurrently, except Close.
type Cluster struct {
	dir        string
	kube       string // the file with all programs
	addons     string // the folder of what runs in the cluster
	repository string // the folder of this module
	node       *proc.Process
	begun      chan struct{} // closed once node is there
	api, token string        // where the API server is, seen from here, and the administrator's token
	trust      *tls.Config
	postgres   *servers.Server // of Shop
	life       context.Context // ends with Close
	end        context.CancelFunc
	once       sync.Once
}

// Start starts a cluster and waits until its node takes pods and CoreDNS answers, 90 s at most. The
// error wraps servers.ErrMissing when something is not installed, and is that of
// servers.ClusterRuns where no cluster can run. ctx limits the start, not the cluster's life.
func Start(ctx context.Context) (*Cluster, error) {
	c, err := start(ctx)
	if err != nil {
		return nil, fmt.Errorf("cluster: start: %w", err)
	}
	return c, nil
}

func start(ctx context.Context) (c *Cluster, err error) {
	if err := servers.ClusterRuns(); err != nil {
		return nil, err
	}
	if os.Args[0] == selfName {
		return nil, errors.New("main, or TestMain, has to call cluster.Init first")
	}
	c = &Cluster{begun: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	if c.kube, c.addons, err = servers.Cluster(); err != nil {
		return nil, err
	}
	if c.repository, err = servers.Repository("tools/addons"); err != nil {
		return nil, err
	}
	c.repository = filepath.Dir(filepath.Dir(c.repository))
	if c.dir, err = os.MkdirTemp("", "kaptar-cluster-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			text := c.Logs()
			err = fmt.Errorf("%w%s", errors.Join(err, c.Close()), text)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	for _, path := range []string{"/readyz", "/api/v1/namespaces/default/serviceaccounts/default"} {
		if err := c.poll(ctx, func() error { _, err := c.get(ctx, path); return err }); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"pause", "coredns"} {
		if err := c.ImportProgram(ctx, "localhost/"+name+":1", filepath.Join(c.addons, name)); err != nil {
			return nil, err
		}
	}
	dns, err := files.ReadFile("files/coredns.yaml")
	if err == nil {
		_, err = c.Kubectl(ctx, string(dns), "apply", "-f", "-")
	}
	if err == nil {
		err = c.poll(ctx, func() error { return c.ready(ctx) })
	}
	if err == nil {
		err = c.poll(ctx, func() error { return c.resolves(ctx) })
	}
	return c, err
}

// begin writes the files, starts the node, and makes the API server reachable from here.
func (c *Cluster) begin(ctx context.Context) (err error) {
	if c.api, err = c.Forward(ctx, "127.0.0.1:0", apiServer); err != nil {
		return err
	}
	if c.token, err = c.write(c.api); err != nil {
		return err
	}
	if c.trust, err = (&tlsfiles.Files{On: true, CA: c.path("ca.crt")}).Config(); err != nil {
		return err
	}
	if err = c.startNode(); err == nil {
		close(c.begun)
	}
	return err
}

// get asks the API server.
func (c *Cluster) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return servers.Request(ctx, c.trust, http.MethodGet, "https://"+c.api+path, nil, "Authorization", "Bearer "+c.token)
}

// ready returns nil once the node takes pods.
func (c *Cluster) ready(ctx context.Context) error {
	text, err := c.get(ctx, "/api/v1/nodes/"+nodeName)
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal([]byte(text), &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return errors.New("the node is not ready: " + condition.Message)
		}
	}
	return errors.New("the node has not said yet whether it is ready")
}

// resolves returns nil once CoreDNS answers at its service.
func (c *Cluster) resolves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.Dial(ctx, network, "10.96.0.10:53")
	}}
	_, err := r.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err
}

// poll calls f until it returns nil, ctx ends or the node does.
func (c *Cluster) poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.node.Done():
			return errors.New("its first process has ended")
		case <-ctx.Done():
			return err
		}
	}
}

// Kubectl runs kubectl as an administrator, with a text for its standard input, and returns what it
// prints. Its error has what kubectl says.
func (c *Cluster) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kube, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := run(cmd)
	if err != nil {
		return out, fmt.Errorf("cluster: kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

func run(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), err
}

// Kubeconfig returns the path of the administrator's configuration for kubectl, which works on this
// machine as long as this process lives.
func (c *Cluster) Kubeconfig() string { return c.path("admin.conf") }

// Programs returns the file with all programs of Kubernetes: its first argument may be kubectl.
func (c *Cluster) Programs() string { return c.kube }

// Import takes the images of a file as docker save and tools/image write it. Pods name them with
// imagePullPolicy: Never; there is no registry.
func (c *Cluster) Import(ctx context.Context, image io.Reader) error {
	return c.ctr(ctx, image, "images", "import", "-")
}

// ctr runs containerd's own client.
func (c *Cluster) ctr(ctx context.Context, input io.Reader, args ...string) error {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--namespace", "k8s.io"}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERD_ADDRESS="+c.Containerd())
	cmd.Stdin = input
	if out, err := run(cmd); err != nil {
		return fmt.Errorf("cluster: ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// ImportProgram imports an image of that name with one program, which is static, and nothing else.
func (c *Cluster) ImportProgram(ctx context.Context, tag, program string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeImage(w, tag, program)) }()
	err := c.Import(ctx, r)
	_ = r.Close() // so that the writer ends
	return err
}

// KillContainer ends a container with SIGKILL, as the kernel does when memory runs out. The id is
// that of the pod's status, with or without containerd://.
func (c *Cluster) KillContainer(ctx context.Context, id string) error {
	return c.ctr(ctx, nil, "tasks", "kill", "--signal", "SIGKILL", strings.TrimPrefix(id, "containerd://"))
}

// Forward listens on an address of this machine, port 0 for a free one, and hands connections to an
// address in the cluster until Close. It returns where it listens.
func (c *Cluster) Forward(ctx context.Context, from, to string) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", from)
	if err != nil {
		return "", fmt.Errorf("cluster: forward to %s: %w", to, err)
	}
	go c.relay(l, func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, "tcp", to) })
	return l.Addr().String(), nil
}

// Expose is the other direction: it listens on a port of the cluster's node, and hands connections
// to an address of this machine.
func (c *Cluster) Expose(ctx context.Context, port int, to string) error {
	var l net.Listener
	err := c.inside(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(nodeIP, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		return fmt.Errorf("cluster: expose %s: %w", to, err)
	}
	go c.relay(l, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", to) })
	return nil
}

// relay serves what l accepts until Close.
func (c *Cluster) relay(l net.Listener, dial func(context.Context) (net.Conn, error)) {
	stop := context.AfterFunc(c.life, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		go c.serve(conn, dial)
	}
}

// serve copies both ways until both have ended.
func (c *Cluster) serve(conn net.Conn, dial func(context.Context) (net.Conn, error)) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(c.life, 5*time.Second)
	defer cancel()
	other, err := dial(ctx)
	if err != nil {
		return
	}
	defer other.Close()
	stop := context.AfterFunc(c.life, func() { _ = errors.Join(conn.Close(), other.Close()) })
	defer stop()
	var both sync.WaitGroup
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if to, ok := to.(*net.TCPConn); ok {
			_ = to.CloseWrite() // a connection that broke ends here too
		}
	}
	both.Go(func() { pipe(other, conn) })
	both.Go(func() { pipe(conn, other) })
	both.Wait()
}

// ArgoRollouts starts the controller of Argo Rollouts, with its definitions, in the namespace
// argo-rollouts.
func (c *Cluster) ArgoRollouts(ctx context.Context) error {
	const image = "quay.io/argoproj/argo-rollouts:latest" // as its manifests name it
	if err := c.ImportProgram(ctx, image, filepath.Join(c.addons, "rollouts-controller")); err != nil {
		return err
	}
	manifests, err := os.ReadFile(filepath.Join(c.addons, "install.yaml"))
	if err != nil {
		return fmt.Errorf("cluster: argo rollouts: %w", err)
	}
	local := strings.ReplaceAll(string(manifests), "imagePullPolicy: Always", "imagePullPolicy: Never")
	for _, step := range []struct{ input, args string }{
		{"", "create namespace argo-rollouts"},
		{local, "-n argo-rollouts apply --server-side -f -"}, // the definitions are too large for an annotation
		{"", "-n argo-rollouts rollout status deployment/argo-rollouts --timeout=60s"},
	} {
		if _, err := c.Kubectl(ctx, step.input, strings.Fields(step.args)...); err != nil {
			return err
		}
	}
	return nil
}

// Logs returns the end of what each program of the cluster has printed, for a test that failed.
func (c *Cluster) Logs() string {
	var b strings.Builder
	logs, _ := filepath.Glob(c.path("log/*")) // the pattern is right
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		fmt.Fprintf(&b, "\n== %s\n%s", filepath.Base(path), text[max(0, len(text)-logTail):])
	}
	return b.String()
}

// Close ends the cluster and removes what it has left. The second call does nothing.
func (c *Cluster) Close() (err error) {
	c.once.Do(func() {
		c.end()
		if c.node != nil {
			c.node.Kill()
			<-c.node.Done()
		}
		if c.postgres != nil {
			err = c.postgres.Close()
		}
		if err = errors.Join(err, sweep(c.dir)); err != nil {
			err = fmt.Errorf("cluster: close: %w", err)
		}
	})
	return err
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }
