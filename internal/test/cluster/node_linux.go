package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// selfName is what this program is called as the first process of a cluster's namespaces.
const selfName = "kaptar-cluster-node"

const groupRoot = "/sys/fs/cgroup"

// A node is what the first process of the namespaces is told.
type node struct {
	Dir        string
	Kubernetes string // the file with all programs

	programs map[int]string
	orphaned atomic.Bool // the process that started this one has ended
}

// startNode starts the first process of a cluster's namespaces, which starts the programs.
func (c *Cluster) startNode() (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Args = []string{selfName}
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	if err := os.Mkdir(c.path("log"), 0o755); err != nil {
		return err
	}
	log, err := os.Create(c.path("log/node"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd.Stdout, cmd.Stderr = log, log
	c.node, err = proc.Start(cmd, &proc.Options{Input: node{Dir: c.dir, Kubernetes: c.kube}})
	return err
}

// Init is to be called first in main, or in TestMain, of a program that calls Start. In the process
// that Start makes of this program it runs the cluster and does not return; in any other it does
// nothing.
func Init() {
	if os.Args[0] != selfName {
		return
	}
	n := &node{programs: map[int]string{}}
	lost, _, err := proc.Parent(n, 0)
	if err == nil {
		go func() {
			<-lost
			n.orphaned.Store(true)
			_ = syscall.Kill(-1, syscall.SIGKILL) // all but this one; who is missed is met by reap
		}()
		err = errors.Join(n.mount(), n.network(), n.groups(), n.start())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	n.reap()
}

// mount hides the folders that the programs have fixed paths for, and the settings of the kernel
// that the kubelet would change for the whole machine.
func (n *node) mount() error {
	errs := []error{
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
	}
	for _, path := range []string{"/run", "/var/lib", "/var/log"} {
		errs = append(errs, syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=755"))
	}
	bind := func(from, to string) { errs = append(errs, syscall.Mount(from, to, "", syscall.MS_BIND, "")) }
	for _, path := range hidden {
		from := filepath.Join(n.Dir, filepath.Base(path))
		errs = append(errs, os.MkdirAll(from, 0o755), os.MkdirAll(path, 0o755))
		bind(from, path)
	}
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1"} {
		from := filepath.Join(n.Dir, strings.ReplaceAll(name, "/", "."))
		errs = append(errs, os.WriteFile(from, []byte(value+"\n"), 0o644))
		bind(from, "/proc/sys/"+name)
	}
	return errors.Join(errs...)
}

// hidden are the folders in which pods' files lie.
var hidden = []string{"/var/lib/kubelet", "/var/log/pods"}

// network makes the bridge of the pods, whose address is the node's: the kubelet refuses loopback.
// A packet to a service needs a route before it is rewritten.
func (n *node) network() error {
	for _, line := range []string{
		"link set lo up", "link add cni0 type bridge", "addr add " + nodeIP + "/24 dev cni0", "link set cni0 up", "route add " + serviceIPs + " dev cni0",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
		os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644),
	)
}

// groups makes the cluster's control groups.
func (n *node) groups() error {
	all, err := filepath.Glob(groupRoot + "/*/cgroup.procs")
	for _, path := range all {
		dir := filepath.Join(filepath.Dir(path), group(n.Dir))
		if filepath.Base(filepath.Dir(path)) == "unified" { // of version 2, beside the others
			continue
		}
		err = errors.Join(err, os.Mkdir(dir, 0o755))
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			if text, missing := os.ReadFile(filepath.Join(filepath.Dir(path), name)); missing == nil {
				err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, 0o644))
			}
		}
	}
	return err
}

// start starts the programs, those that ask the API server once it answers.
func (n *node) start() error {
	for _, p := range n.first() {
		if err := n.run(p); err != nil {
			return err
		}
	}
	if err := n.answers(); err != nil {
		return err
	}
	for _, p := range n.second() {
		if err := n.run(p); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) run(args []string) error {
	name := filepath.Base(args[0])
	if args[0] == n.Kubernetes {
		name = args[1]
	}
	log, err := os.Create(filepath.Join(n.Dir, "log", name))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the program has its own
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	n.programs[cmd.Process.Pid] = name
	return nil
}

// answers waits until the API server does. The caller of Start gives up earlier than this does.
func (n *node) answers() error {
	trust, err := (&tlsfiles.Files{On: true, CA: filepath.Join(n.Dir, "ca.crt")}).Config()
	if err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := servers.Request(ctx, trust, http.MethodGet, "https://"+apiServer+"/readyz", nil)
		cancel()
		if err == nil {
			return nil
		}
		var status syscall.WaitStatus
		if pid, _ := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); pid > 0 {
			return fmt.Errorf("%s has ended: %s", n.programs[pid], ended(status))
		}
		<-time.After(20 * time.Millisecond)
	}
}

// reap waits for whatever ends, what containers leave behind too, and says so of the programs. When
// the process that started this one has ended, it removes what is left and ends.
func (n *node) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case n.orphaned.Load() && errors.Is(err, syscall.ECHILD):
			for _, path := range hidden {
				_ = syscall.Unmount(path, syscall.MNT_DETACH) // what is mounted below goes too
			}
			if err := sweep(n.Dir); err != nil {
				fmt.Fprintln(os.Stderr, "cluster:", err)
			}
			os.Exit(0)
		case n.orphaned.Load():
			_ = syscall.Kill(-1, syscall.SIGKILL)
		case n.programs[pid] != "":
			fmt.Fprintf(os.Stderr, "cluster: %s has ended: %s\n", n.programs[pid], ended(status))
		}
	}
}

func ended(s syscall.WaitStatus) string {
	if s.Signaled() {
		return s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// sweep removes the control groups and the folder of a cluster whose processes have ended.
func sweep(dir string) (err error) {
	for range 50 {
		err = nil
		groups, _ := filepath.Glob(filepath.Join(groupRoot, "*", group(dir))) // the pattern is right
		for _, path := range groups {
			var below []string
			walk := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					below = append(below, path)
				}
				return err
			})
			err = errors.Join(err, walk)
			for _, path := range slices.Backward(below) {
				err = errors.Join(err, os.Remove(path))
			}
		}
		if err == nil {
			return os.RemoveAll(dir)
		}
		<-time.After(100 * time.Millisecond) // the kernel is a moment behind
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// Containerd returns where containerd listens, as seen from this machine.
func (c *Cluster) Containerd() string {
	return fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", c.node.PID())
}

// Dial connects to an address in the cluster's network, such as a service's or the node's, which is
// 127.0.0.1 for ports of services (NodePort). It knows no names.
func (c *Cluster) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = c.inside(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// inside runs f on a thread that is in the cluster's network. What f does in other goroutines is
// not.
func (c *Cluster) inside(f func() error) error {
	select {
	case <-c.begun:
	case <-c.life.Done():
		return c.life.Err()
	}
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.node.PID()))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with this goroutine
	}
	runtime.UnlockOSThread()
	return err
}
