//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// lockDir makes dir if necessary and locks it. The lock lasts until this process, and all processes
// to which it passes the file, have closed it or ended. If the process that has the lock no longer
// exists, its children are still stopping, and lockDir waits for them.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	// It is written to, so it must not be a link to another file.
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local: data directory: %w; choose another with --data-dir", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	for syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		holder := make([]byte, 20)
		n, _ := f.ReadAt(holder, 0)
		pid := strings.TrimSpace(string(holder[:n]))
		if runs(pid) || !steady.Sleep(ctx, lockRetry) {
			err = fmt.Errorf("local: data directory %s is in use by process %s: stop it, or choose another with --data-dir", dir, pid)
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := writePID(f); err != nil {
		return nil, errors.Join(fmt.Errorf("local: data directory: %w", err), f.Close())
	}
	return f, nil
}

// lockTimeout bounds the wait for the children of a process that was killed: they have a little
// more than their shutdown_timeout. lockRetry is how often it is tried.
const (
	lockTimeout = 15 * time.Second
	lockRetry   = 50 * time.Millisecond
)

// runs reports whether there is a process of that number. With none to ask about it is taken to
// run.
func runs(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err != nil || !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
