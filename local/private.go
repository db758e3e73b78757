package local

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// brokerFile, in the data directory, has the URL of the embedded broker for programs that are not
// part of this one; brokerUser is the user in it.
const (
	brokerFile = "broker.url"
	brokerUser = "kaptar"
)

// readPassword returns the embedded broker's password that is kept in dir, or a new one if there is
// none, or if others could read it.
func readPassword(dir string) string {
	path := filepath.Join(dir, brokerFile)
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && !isOpen(info) {
		text, _ := os.ReadFile(path) //nolint:gosec // G304: in the data directory
		u, err := url.Parse(strings.TrimSpace(string(text)))
		if err == nil && u.User.Username() == brokerUser {
			if password, _ := u.User.Password(); len(password) >= len(rand.Text()) {
				return password
			}
		}
	}
	return rand.Text()
}

// makePrivate takes the rights of other users from what is kept in the data directory, and writes
// the broker's URL into it. It returns how many files were open to others. The directory must be
// locked.
func (o *Options) makePrivate() (tightened int, err error) {
	if tightened, err = tighten(o.Dir); err != nil {
		return 0, fmt.Errorf("local: data directory: other users of this machine can read it, and that cannot be changed: %w; "+
			"choose another with --data-dir", err)
	}
	// A new file, since a program that has the old one open, or a link in its stead, could read it.
	path, text := filepath.Join(o.Dir, brokerFile), o.brokerURL()+"\n"
	if old, err := os.ReadFile(path); err == nil && string(old) == text { //nolint:gosec // G304: in the data directory
		return tightened, nil
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return 0, fmt.Errorf("local: data directory: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return 0, fmt.Errorf("local: data directory: %w", err)
	}
	return tightened, nil
}
