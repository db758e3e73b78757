package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar/internal/test/disk"
)

// TestCut: what was synced is there after each of three cuts, what was only written is not.
func TestCut(t *testing.T) {
	t.Parallel()
	d := disk.New(t)
	synced, written := filepath.Join(d.Dir, "synced"), filepath.Join(d.Dir, "written")
	for _, text := range []string{"one", "two", "three"} {
		if err := os.WriteFile(written, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(synced)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		d.Cut()
		if got, err := os.ReadFile(synced); string(got) != text {
			t.Errorf("synced: got %q, %v, want %q", got, err, text)
		}
		if got, _ := os.ReadFile(written); string(got) == text {
			t.Errorf("written: got %q, want it forgotten", got)
		}
	}
	if err := os.WriteFile(written, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Sync()
	d.Cut()
	if got, err := os.ReadFile(written); string(got) != "four" {
		t.Errorf("after Sync: got %q, %v, want four", got, err)
	}
}

// TestSmall: a disk that is full takes no more.
func TestSmall(t *testing.T) {
	t.Parallel()
	dir := disk.Small(t, 1)
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("2 MB to a disk of 1: got %v, want no space", err)
	}
}
