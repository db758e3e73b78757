package servers

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A shelf has programs that recipes put there.
type shelf struct {
	mu   sync.Mutex
	have map[string]bool
}

func (s *shelf) put(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.have[name] = true
	}
}

// find returns what looks for a program on the shelf.
func (s *shelf) find(name string) func() (string, error) {
	return func() (string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.have[name] {
			return "", errors.New("no " + name)
		}
		return name, nil
	}
}

func expectText(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

// TestInstallSaysWhatItDoes: the plan first, then every 10 s how far each is, and how it ended.
func TestInstallSaysWhatItDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := shelf{have: map[string]bool{}}
		build := func(_ context.Context, progress func(string)) error {
			progress("12 packages compiled")
			time.Sleep(25 * time.Second)
			s.put("slow")
			return nil
		}
		var out bytes.Buffer
		i := installer{out: &out, interval: progressInterval, blocked: func() error { return nil }}
		i.apt = func(_ context.Context, packages []string, progress func(string)) error {
			if strings.Join(packages, " ") != "deb1 deb2" {
				t.Errorf("apt gets %q, want the packages of all recipes at once", packages)
			}
			progress("Get:1 deb1")
			time.Sleep(12 * time.Second)
			s.put("one")
			return nil
		}
		err := i.install(t.Context(), map[string]recipe{
			"one":  {find: s.find("one"), debian: []debianPackage{{name: "deb1"}, {"there", func() bool { return true }}}, minutes: 1, gigabytes: 0.5},
			"slow": {find: s.find("slow"), fetch: build, product: product{from: "built from tools/slow"}, minutes: 3, gigabytes: 1},
			"two":  {find: s.find("two"), debian: []debianPackage{{name: "deb2"}}}, // and is not there afterwards
		})
		if err == nil || err.Error() != "servers: two was installed, and still: no two" {
			t.Errorf("install = %v, want the error of the one that is still missing", err)
		}
		plan, _, _ := strings.Cut(out.String(), "   10 s")
		expectText(t, plan, "about 4 minutes on 2 cores and 1.5 GB", "one         1.0 min  0.5 GB  Debian's deb1\n", "slow        3.0 min  1.0 GB  built from tools/slow\n")
		expectText(t, out.String(), "   10 s  apt-get    Get:1 deb1\n", "   10 s  one        waits for apt-get\n", "   10 s  slow       12 packages compiled\n",
			"   12 s  apt-get    ok\n", "   12 s  one        ok\n", "   12 s  two        FAILED\n", "   20 s             under way: slow\n", "   25 s  slow       ok\n")
	})
}

// TestInstallWhereItCannot: what is missing is named with the ways to go on, and the rest is
// installed.
func TestInstallWhereItCannot(t *testing.T) {
	t.Parallel()
	s := shelf{have: map[string]bool{}}
	var out bytes.Buffer
	i := installer{out: &out, interval: time.Hour, blocked: func() error { return errors.New("there is no apt-get") }}
	err := i.install(t.Context(), map[string]recipe{
		"one":  {find: s.find("one"), debian: []debianPackage{{name: "deb1"}}},
		"slow": {find: s.find("slow"), fetch: func(context.Context, func(string)) error { s.put("slow"); return nil }},
	})
	if err == nil || err.Error() != "servers: install one: there is no apt-get" {
		t.Errorf("install = %v, want that one is missing, and nothing of slow", err)
	}
	expectText(t, out.String(), "cannot be installed here, since there is no apt-get: one (what Debian calls deb1)\n",
		"docker compose up", "KAPTAR_TEST_POSTGRES=", "make test-short", "slow       ok")
}
