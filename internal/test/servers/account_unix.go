//go:build unix

package servers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// An account is the user that servers run as when this process runs as root. Nil is the user of
// this process.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged returns the account nobody when this process runs as root: PostgreSQL refuses to run
// as root, and no server needs to.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("the server shall not run as root: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

func (a *account) String() string { return a.name }

// attributes give a process the account, and a process group of its own, which Ctrl-C in a terminal
// does not reach.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: []uint32{}}
	}
	return attr
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// barred returns the first folder on the way to path that the account cannot enter, or path if it
// cannot read that, or "".
func (a *account) barred(path string) string {
	if a == nil {
		return ""
	}
	where := ""
	for dir, need := path, os.FileMode(0o5); ; dir, need = filepath.Dir(dir), 0o1 {
		info, err := os.Stat(dir)
		if err != nil {
			return dir
		}
		if !info.IsDir() {
			need = 0o4
		}
		mode := info.Mode().Perm()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == a.uid {
			mode >>= 6
		} else if ok && stat.Gid == a.gid {
			mode >>= 3
		}
		if mode&need != need {
			where = dir
		}
		if dir == filepath.Dir(dir) {
			return where
		}
	}
}

// share returns a path at which the account can read a file, or all files of a folder: path itself,
// or hard links or copies in dir, since the cache folder of another user is closed to it.
func (a *account) share(path, dir string) (string, error) {
	if a.barred(path) == "" {
		return path, nil
	}
	to := filepath.Join(dir, filepath.Base(path))
	if info, err := os.Stat(path); err != nil {
		return "", err
	} else if info.IsDir() {
		path, to = path+"/.", dir
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil { // an earlier start's may be of another version
		return "", err
	}
	const links = `cp -rl "$1" "$2" 2>/dev/null || cp -rf "$1" "$2"`
	if out, err := exec.Command("sh", "-c", links, "sh", path, dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cp: %w: %s", err, out)
	}
	return to, a.own(dir) // to remove it; the files may be the cache's own
}

// tryLock locks a file until it is closed or this process ends. It is an error when another one has
// it.
func tryLock(path string) (io.Closer, error) {
	lock, err := flock(path, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s is taken, its server runs", filepath.Dir(path))
	}
	return lock, err
}

// locked runs f while no other process runs something under the same lock file.
func locked(path string, f func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := flock(path, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	return f()
}

// A heldLock is a locked file. A child that is about to be started has the file too for a moment, so
// closing it is not enough.
type heldLock struct{ *os.File }

func (l heldLock) Close() error {
	return errors.Join(syscall.Flock(int(l.Fd()), syscall.LOCK_UN), l.File.Close())
}

func flock(path string, how int) (io.Closer, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), how); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return heldLock{lock}, nil
}
