//go:build unix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// ours are the names of our files in the data directory. Other files there are not touched.
var ours = []string{"lock", brokerFile, brokerFile + ".new", operatorFile + ".new", "*.key", "*.db", "*.db-wal", "*.db-shm", "*.db-journal", "nats", "tls"}

func isOurs(name string) bool {
	return slices.ContainsFunc(ours, func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok })
}

// isOpen reports whether other users have any right to the file.
func isOpen(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// checkDir makes dir if necessary. It refuses a directory that is open to other users and has other
// files too, such as a home directory or /tmp, because this program should not change its mode.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("local: data directory: %w; choose another with --data-dir", err)
	}
	info, err := os.Stat(dir)
	if err != nil || !isOpen(info) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("local: data directory: %w; choose another with --data-dir", err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			return nil
		}
	}
	if i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return !isOurs(e.Name()) }); i >= 0 {
		return fmt.Errorf("local: data directory %s: other users of this machine can read it, and it holds other files, such as %s: "+
			"choose another with --data-dir, or take their rights away with chmod 700", dir, entries[i].Name())
	}
	return nil
}

// tighten makes the directories of the data 0700 and its files 0600, if others have any right to
// them, and returns how many that were. It follows no link out of dir.
func tighten(dir string) (n int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // SQLite removes files of a program that is gone
			return nil
		case err != nil:
			return err
		case name != "." && path.Dir(name) == "." && !isOurs(name):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err != nil || !isOpen(info) || !info.IsDir() && !info.Mode().IsRegular() {
			return ignoreMissing(err)
		}
		mode := fs.FileMode(0o600)
		if info.IsDir() {
			mode = 0o700
		}
		n++
		return ignoreMissing(root.Chmod(name, mode))
	})
	return n, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
