//go:build unix

package sqldb

import (
	"errors"
	"os"
	"syscall"
)

// lockFile makes the file if needed and takes its lock, which ends with the process or by unlockFile.
// It returns nil if another process or another part of this one has the lock.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	} else {
		err = &os.PathError{Op: "flock", Path: path, Err: err}
	}
	return nil, errors.Join(err, f.Close())
}

// unlockFile gives the lock up and closes f. A child that is about to be started has the file too,
// for a moment, so that closing alone would leave the lock with it.
func unlockFile(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}
