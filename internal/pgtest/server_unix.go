//go:build unix

package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const startTimeout = 60 * time.Second

// supervise runs the server ("$@") until its own standard input closes, which the kernel does when the test process
// ends in whatever way; then it stops the server and removes its files ($dir).
const supervise = `
"$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
read -r _
kill -INT "$pid" 2>/dev/null
wait "$pid"
cd / && rm -rf "$dir"
`

// start starts a server and returns the URL of its maintenance database and what stops it.
func start() (admin string, stop func() error, err error) {
	bin, err := binaries()
	if err != nil {
		return "", nil, err
	}
	cred, err := unprivileged()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	password := rand.Text()
	if err := initialise(bin, dir, password, cred); err != nil {
		return "", nil, err
	}
	for range 3 { // the free port may be taken before the server has it
		var port string
		if port, err = freePort(); err != nil {
			return "", nil, err
		}
		admin = "postgres://postgres:" + password + "@127.0.0.1:" + port + "/postgres?sslmode=disable"
		if stop, err = launch(bin, dir, port, admin, cred); err == nil {
			return admin, stop, nil
		}
	}
	return "", nil, err
}

// binaries returns the folder with initdb and postgres: on the PATH, or the newest of Debian's.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "postgres")); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("initdb is neither on the PATH nor in /usr/lib/postgresql/*/bin")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func version(initdb string) int {
	v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return v
}

// unprivileged returns the user that the server runs as: nil for this process' own, and another one for root, whom
// PostgreSQL refuses.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func initialise(bin, dir, password string, cred *syscall.Credential) error {
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return err
	}
	if cred != nil {
		for _, path := range []string{dir, secret} {
			if err := os.Chown(path, int(cred.Uid), int(cred.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres",
		"-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--no-sync")
	cmd.Dir, cmd.Env = dir, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func environment() []string {
	return []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
}

// launch runs the server under its supervisor and waits until it answers.
func launch(bin, dir, port, admin string, cred *syscall.Credential) (func() error, error) {
	cmd := exec.Command("/bin/sh", "-c", supervise, "sh", filepath.Join(bin, "postgres"),
		"-D", filepath.Join(dir, "data"), "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "shared_buffers=64MB",
		"-c", "max_connections=200")
	cmd.Dir, cmd.Env = dir, append(environment(), "dir="+dir)
	// A process group of its own: Ctrl-C in a terminal must not end the supervisor before the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() error { return end(cmd, leash, dir) }
	if err := await(admin, filepath.Join(dir, "log")); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// end lets the leash go and waits for the supervisor, which waits for the server.
func end(cmd *exec.Cmd, leash io.Closer, dir string) error {
	_ = leash.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	return os.RemoveAll(dir) // /tmp may not let the server's user remove the folder itself
}

func await(admin, log string) error {
	db, err := sql.Open("pgx", admin)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		pingErr := db.PingContext(ctx)
		if pingErr == nil {
			return nil
		}
		text, _ := os.ReadFile(log)
		if bytes.Contains(text, []byte("database system is shut down")) || ctx.Err() != nil {
			return fmt.Errorf("the server did not start: %w: %s", pingErr, bytes.TrimSpace(text))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
