package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Small returns a folder in memory which holds size megabytes; it is gone after the test.
func Small(t testing.TB, megabytes int) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kaptar-disk-") //nolint:usetesting // servers run as another user, who may not enter that of t
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=755,size=%dm", megabytes)); err != nil {
		end(t, fmt.Errorf("mount a tmpfs: %w", err))
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A Disk is an ext4 file system on a device of its own, a file in memory. That file has what was synced
// and what the kernel has written by itself; the rest is in the kernel's memory alone. The device
// itself forgets nothing and writes in the order in which it is told to: disks with a cache that
// lies are not shown.
type Disk struct {
	Dir string // its root, the same after Cut

	t     testing.TB
	image string
	cuts  int
}

// New makes a disk of half a gigabyte, which takes memory only for what is written to it.
func New(t testing.TB) *Disk {
	t.Helper()
	dir := Small(t, 2048)
	d := &Disk{Dir: filepath.Join(dir, "root"), t: t, image: filepath.Join(dir, "image")}
	file, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(512<<20), file.Close(), os.Mkdir(d.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := run("mkfs.ext4", "-q", "-F", d.image); err != nil {
		end(t, err)
	}
	if err := d.mount(); err != nil {
		end(t, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(d.Dir, syscall.MNT_DETACH) })
	return d
}

func (d *Disk) mount() error { return run("mount", "-o", "loop", d.image, d.Dir) }

// Sync has everything reach the device.
func (d *Disk) Sync() {
	d.t.Helper()
	root, err := os.Open(d.Dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// Cut puts what has reached the device in the place of what was written, as when the power comes back.
// Nobody may write meanwhile; files that are still open are those of before, and change nothing.
func (d *Disk) Cut() {
	d.t.Helper()
	d.cuts++
	old := d.image
	d.image = fmt.Sprint(filepath.Join(filepath.Dir(d.Dir), "image-"), d.cuts)
	err := run("cp", "--sparse=always", old, d.image)
	if err == nil {
		err = errors.Join(syscall.Unmount(d.Dir, syscall.MNT_DETACH), d.mount(), os.Remove(old))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// end skips the test for want of a right, or of something else, which CI must have.
func end(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") != "" && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	t.Skipf("a disk of its own takes the right to mount, which root has, loop devices and mkfs.ext4: %v", err)
}
