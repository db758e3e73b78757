package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaptar/kaptar/config"
)

// FuzzLoad: whatever bytes the settings file and .env hold, Load returns, with settings or with *Errors, and no target is half filled.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "a", "listen: :1", "- a", "{", "services: {a: {listen: x}}", "a: &a [*a]", "<<: *a", "clients: &c {x: {timeout: 1s}}\ntopics: *c",
		"clients:\n  a: &a {timeout: 1s}\n  b: {<<: *a}", "? k\n: v", "listen: !!str 5", "listen: |\n  x\n  y", "---\na: 1\n---\nb: 2", "%YAML 1.2\n---\na: 1",
		"LISTEN='x\n' #\nA=\"\\", "export A=1", "a: .inf", "a: 0x", "\xff\xfe", "debug: yes\ndebug: no", "clients: {? {a: b} : c}", "<<: [{debug: 1}, x]",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "config.yml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, src := range []config.Sources{{File: path}, {DotEnv: path}} {
			s := processSettings{RedisHost: "before"}
			c, err := config.Load(src, config.Target{Service: "a", Into: &s}, config.Target{Service: "a", Into: &everything{}})
			if err == nil {
				c.Values()
				continue
			}
			if _, ok := errors.AsType[*config.Errors](err); !ok || err.Error() == "" || s.RedisHost != "before" || s.Listen != "" {
				t.Errorf("%q: got %T %v, settings %+v", data, err, err, s)
			}
		}
	})
}

// FuzzSize: a size is never negative, and its text means the same.
func FuzzSize(f *testing.F) {
	for _, seed := range []string{"", "0", "512", "64KiB", "1 mb", "-1", "9223372036854775807", "9223372036854775808B", "8388608TiB", "1e3", "0x10", "１", " 1B "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again config.Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || s < 0 || again != s {
			t.Errorf("%q is %d, whose text %q is %d, %v", text, s, s.String(), again, err)
		}
	})
}
