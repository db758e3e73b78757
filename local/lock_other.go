//go:build !unix

package local

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// lockDir makes dir if need be. Without flock, two processes in one directory are noticed only by
// the ports that they share.
func lockDir(_ context.Context, dir string) (*os.File, error) {
	err := os.MkdirAll(dir, 0o700)
	var f *os.File
	if err == nil {
		f, err = os.Create(filepath.Join(dir, "lock"))
	}
	if err != nil {
		return nil, fmt.Errorf("local: data directory: %w; choose another with --data-dir", err)
	}
	return f, nil
}

// tighten does nothing: who may read a file is not in its mode here.
func tighten(string) (int, error) { return 0, nil }

func isOpen(fs.FileInfo) bool { return false }
