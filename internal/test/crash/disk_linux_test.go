package crash

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

// small returns a folder in memory which holds so many megabytes; it is gone after the test. To mount it
// takes a right, which root has: without it the test is skipped.
func small(t testing.TB, megabytes int) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kaptar-disk-") // not that of t, which the user of the servers may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=755,size=%dm", megabytes)); errors.Is(err, os.ErrPermission) {
		t.Skipf("a disk of its own takes the right to mount, which root has: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A disk is an ext4 file system on a device of its own, a file in memory. That file has what was synced
// and what the kernel has written by itself; the rest is in the kernel's memory alone. The device
// itself forgets nothing and writes in the order in which it is told to: disks with a cache that
// lies are not shown.
type disk struct {
	dir string // its root, the same after cut

	t     testing.TB
	image string
	cuts  int
}

// newDisk makes a disk of half a gigabyte, which takes memory only for what is written to it.
func newDisk(t testing.TB) *disk {
	t.Helper()
	dir := small(t, 2048)
	d := &disk{dir: filepath.Join(dir, "root"), t: t, image: filepath.Join(dir, "image")}
	file, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(512<<20), file.Close(), os.Mkdir(d.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := run("losetup", "-f"); err != nil {
		t.Skipf("a disk whose power can be cut takes a loop device: %v", err)
	}
	if err := run("mkfs.ext4", "-q", "-F", d.image); err != nil {
		missing := "a disk whose power can be cut takes mkfs.ext4; Debian has it in e2fsprogs"
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: %v", missing, err)
		}
		t.Skipf("%s: %v", missing, err)
	}
	if err := d.mount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(d.dir, syscall.MNT_DETACH) })
	return d
}

func (d *disk) mount() error { return run("mount", "-o", "loop", d.image, d.dir) }

// sync has everything reach the device.
func (d *disk) sync() {
	d.t.Helper()
	root, err := os.Open(d.dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// cut puts what has reached the device in the place of what was written, as when the power comes back.
// Nobody may write meanwhile; files that are still open are those of before, and change nothing. The
// kernel may: a copy that has only a part of what it wrote is made again, as no cut of power leaves what
// was written later without what was written before.
func (d *disk) cut() {
	d.t.Helper()
	d.cuts++
	old := d.image
	d.image = fmt.Sprint(filepath.Join(filepath.Dir(d.dir), "image-"), d.cuts)
	err := errors.New("not copied")
	for tries := 0; err != nil && tries < 20; tries++ {
		err = errors.Join(run("cp", "--sparse=always", old, d.image), run("cmp", old, d.image))
	}
	if err == nil {
		err = errors.Join(syscall.Unmount(d.dir, syscall.MNT_DETACH), d.mount(), os.Remove(old))
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
