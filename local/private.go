package local

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaptar/kaptar/config"
)

// In the data directory brokerFile has the URL of the embedded broker, for programs that are not part
// of this one, and operatorFile an API key that allows everything; brokerUser is the user in the
// former.
const (
	brokerFile   = "broker.url"
	brokerUser   = "kaptar"
	operatorFile = "operator.key"
)

// readPassword returns the embedded broker's password from dir. It returns a new one if there is
// none, or if others could read it.
func readPassword(dir string) string {
	u, err := url.Parse(readPrivate(filepath.Join(dir, brokerFile)))
	if err == nil && u.User.Username() == brokerUser {
		if password, _ := u.User.Password(); len(password) >= len(rand.Text()) {
			return password
		}
	}
	return rand.Text()
}

// readOperator does the same for the operator's API key.
func readOperator(dir string) string {
	if key := readPrivate(filepath.Join(dir, operatorFile)); len(key) >= len(rand.Text()) {
		return key
	}
	return rand.Text() + rand.Text()
}

// readPrivate returns the content of a file, or "" if there is none or others can read it.
func readPrivate(path string) string {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || isOpen(info) {
		return ""
	}
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// makePrivate removes the rights of other users from the files in the data directory, and writes
// the broker's URL and the operator's key into it. It returns how many files were open to others.
// The directory must be locked.
func (o *Options) makePrivate() (tightened int, err error) {
	if tightened, err = tighten(o.Dir); err != nil {
		return 0, fmt.Errorf("local: data directory: other users of this machine can read it, and that cannot be changed: %w; "+
			"choose another with --data-dir", err)
	}
	for name, text := range map[string]string{brokerFile: o.brokerURL(), operatorFile: o.operator} {
		path := filepath.Join(o.Dir, name)
		if readPrivate(path) == text {
			continue
		}
		// A new file, since a program that has the old one open, or a link in its stead, could read it.
		_ = os.Remove(path + ".new") // which may be such a link, too
		if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
			return 0, fmt.Errorf("local: data directory: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return 0, fmt.Errorf("local: data directory: %w", err)
		}
	}
	return tightened, nil
}

// setKeys adds to defaults the internal key of this Run, by which services recognise each other,
// and the operator's API key.
func (o *Options) setKeys(defaults map[string]string) {
	if o.operator == "" {
		return // the command config, which makes none
	}
	hash := sha256.Sum256([]byte(o.operator))
	defaults["auth.internal_keys"] = rand.Text() + rand.Text()
	defaults["auth.keys.operator.sha256"] = hex.EncodeToString(hash[:])
	defaults["auth.keys.operator.scopes"] = "*"
}

// asksWho reports whether package auth is linked: then a setting is the operator's key.
func (o *Options) asksWho(settings *config.Config) bool {
	hash := o.Sources.Defaults["auth.keys.operator.sha256"]
	return settings.AnyText(func(text string) bool { return text == hash })
}
