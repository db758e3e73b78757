//go:build !unix

package sqldb

import "os"

// lockFile only makes the file, since there is no flock.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

func unlockFile(f *os.File) { _ = f.Close() }
