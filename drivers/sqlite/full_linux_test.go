package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

// TestFullDisk: the error of a database whose disk is full says so.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("a small disk: %v: CI must be able to mount", err)
		}
		t.Skipf("a small disk needs the right to mount: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	file := filepath.Join(disk, "shop.db")
	db, err := sqldb.Open(t.Context(), "sqlite:"+file)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "fill"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	db, err = sqldb.Open(t.Context(), "sqlite:"+file)
	if err == nil {
		_ = db.Close()
	}
	if want := "the file system of " + disk + " is full, or fails"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("open on a full disk: %v, want %q", err, want)
	}
}
