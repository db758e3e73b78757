//go:build unix

package local_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/local"
)

// keeps is a service with a database.
func keeps(name string) kaptar.Service {
	s := writer(func() {})
	events := s.Setup
	s.Name, s.Setup = name, func(app *kaptar.App) error {
		_, err := app.DB(nil)
		return errors.Join(err, events(app))
	}
	return s
}

// open returns what others have a right to in dir.
func open(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			paths = append(paths, path+" "+info.Mode().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// What services keep, password hashes and keys among it, is nobody else's to read, also if it was
// once.
func TestDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	opts := local.Options{Dir: filepath.Join(t.TempDir(), "new", "dir"), NATSListen: "127.0.0.1:0"}
	first := opts
	_, stop := start(t, &first, keeps("a"))
	if got := open(t, opts.Dir); len(got) > 0 {
		t.Errorf("open to others: %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(opts.Dir, "tool")
	if err := os.WriteFile(theirs, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{opts.Dir: 0o755, opts.Dir + "/a.db": 0o644, opts.Dir + "/nats/jetstream": 0o755, theirs: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	var screen bytes.Buffer
	second := opts
	second.Screen = &screen
	start(t, &second, keeps("a"))
	if got := open(t, opts.Dir); len(got) != 1 || got[0] != theirs+" -rwxr-xr-x" {
		t.Errorf("open to others after the second run: %q, want the foreign file alone", got)
	}
	if want := "could read the data directory or files in it (3): now they cannot"; !strings.Contains(screen.String(), want) {
		t.Errorf("the screen says\n%s\nwant %q", &screen, want)
	}
}

// A directory of somebody's other files is not made private behind their back.
func TestDirectoryOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := local.Options{Dir: dir, NATSListen: "127.0.0.1:0"}
	first := opts
	ctx, cancel := context.WithCancel(t.Context())
	first.Ready = func([]discovery.Instance) { cancel() } // or it would run for ever
	err := local.Run(ctx, &first, idle("a"))
	for _, want := range []string{dir, "letter.txt", "--data-dir", "chmod 700"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run = %v, want an error with %q", err, want)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, &opts, idle("a"))
}

// A link in the data directory leads the program to no file outside of it.
func TestDirectoryWithLinks(t *testing.T) {
	t.Parallel()
	dir, outside := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(outside, []byte("mine"), 0o600), os.Chmod(outside, 0o644),
		os.Symlink(outside, filepath.Join(dir, "broker.url")), os.Symlink(outside, filepath.Join(dir, "x.db")),
		os.Symlink(outside, filepath.Join(dir, "broker.url.new")), os.Symlink(outside, filepath.Join(dir, "operator.key.new"))); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(t.TempDir(), "lock")
	if err := os.Symlink(outside, lock); err != nil {
		t.Fatal(err)
	}
	if err := local.Run(t.Context(), &local.Options{Dir: filepath.Dir(lock), NATSListen: "127.0.0.1:0"}, idle("a")); err == nil {
		t.Error("a lock that is a link was taken")
	}
	start(t, &local.Options{Dir: dir, NATSListen: "127.0.0.1:0"}, idle("a"))
	info, err := os.Stat(outside)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file outside is %v, %v", info, err)
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "mine" {
		t.Errorf("the file outside has %q, %v", text, err)
	}
}

func TestBrokerAsksForItsPassword(t *testing.T) {
	t.Parallel()
	opts := local.Options{Dir: t.TempDir(), NATSListen: "127.0.0.1:0"}
	var screen bytes.Buffer
	first := opts
	first.Screen = &screen
	_, stop := start(t, &first, writer(func() {}))
	url := brokerURL(t, opts.Dir)
	_, address, _ := strings.Cut(url, "@")
	for _, wrong := range []string{"nats://" + address, "nats://kaptar@" + address, "nats://kaptar:password@" + address, "nats://:@" + address} {
		if c, err := nats.Connect(wrong, nats.MaxReconnects(0)); err == nil {
			c.Close()
			t.Errorf("%s was let in", wrong)
		}
	}
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatalf("the URL that the file has: %v", err)
	}
	c.Close()
	if !strings.Contains(screen.String(), filepath.Join(opts.Dir, "broker.url")) || strings.Contains(screen.String(), password(url)) {
		t.Errorf("the screen does not tell of the file, or tells the password:\n%s", &screen)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	second := opts
	_, stop = start(t, &second, writer(func() {}))
	if got := password(brokerURL(t, opts.Dir)); got != password(url) {
		t.Errorf("the second run has another password")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// One that others could read is no secret any more.
	if err := os.Chmod(filepath.Join(opts.Dir, "broker.url"), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, &opts, writer(func() {}))
	if got := password(brokerURL(t, opts.Dir)); got == password(url) {
		t.Errorf("a password that others could read is still in use")
	}
}

func brokerURL(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "broker.url"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func password(brokerURL string) string {
	_, rest, _ := strings.Cut(brokerURL, "kaptar:")
	word, _, _ := strings.Cut(rest, "@")
	return word
}
