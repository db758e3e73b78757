package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// A recipe is how something that tests need is found and installed.
type recipe struct {
	// needs lists programs that have to be on the PATH.
	needs []string
	// find returns where the program is, or an error that says what is missing. Nil: it is the
	// product, or the last of needs.
	find func() (program string, err error)
	// debian lists the Debian packages that it needs.
	debian  []debianPackage
	product product
	// fetch gets what is no Debian package, and reports each line of progress. Nil: it makes the
	// product, if there is one.
	fetch func(ctx context.Context, progress func(line string)) error

	minutes, gigabytes float64 // roughly, on 2 cores when nothing is cached
}

// look returns where the program is, or an error that says what is missing.
func (r recipe) look() (program string, err error) {
	for _, name := range r.needs {
		if program, err = exec.LookPath(name); err != nil {
			return "", err
		}
	}
	switch {
	case r.find != nil:
		return r.find()
	case r.product.name != "":
		return r.product.find()
	}
	return program, nil
}

// A debianPackage is installed unless it is there.
type debianPackage struct {
	name  string
	there func() bool // nil: it is missing whenever find fails
}

// onPath reports whether a program is there.
func onPath(program string) func() bool {
	return func() bool {
		_, err := exec.LookPath(program)
		return err == nil
	}
}

// tools returns what tests need beside engines.
func tools() map[string]recipe {
	return map[string]recipe{
		"python":  python(),
		"curl":    {needs: []string{"curl"}, debian: []debianPackage{{name: "curl"}}, minutes: 0.1},
		"cc":      {needs: []string{"cc"}, debian: []debianPackage{{name: "gcc"}, {name: "libc6-dev"}}, minutes: 0.3, gigabytes: 0.2},
		"cluster": cluster(),
	}
}

// Installable returns the names that Install knows and that are of use here: all engines, python,
// curl, cc, the C compiler that the race detector needs, and cluster, what package cluster needs,
// where that can run.
func Installable() []string {
	var names []string
	for _, e := range Engines() {
		names = append(names, string(e))
	}
	names = append(names, "python", "curl", "cc")
	if ClusterRuns() == nil {
		names = append(names, "cluster")
	}
	return names
}

func recipeOf(name string) (recipe, error) {
	if r, ok := tools()[name]; ok {
		return r, nil
	}
	what, err := describe(Engine(name))
	if err != nil {
		return recipe{}, fmt.Errorf("servers: install: no %q, want one of %s", name, strings.Join(Installable(), ", "))
	}
	return what.recipe, nil
}

// Find returns nil when something of Installable is there, and an error that wraps ErrMissing when
// it is not.
func Find(name string) error {
	r, err := recipeOf(name)
	if err != nil {
		return err
	}
	if _, err := r.look(); err != nil {
		return fmt.Errorf("servers: %s: %w: %w", name, ErrMissing, err)
	}
	return nil
}

// progressInterval is how often Install says how far it is.
const progressInterval = 10 * time.Second

// Install installs what is missing of names, which are some of Installable: Debian packages, as
// root or through sudo without a password; Kafka's jars by Maven; Python packages by pip; Consul,
// Jaeger, VictoriaLogs, Prometheus and Kubernetes built from tools/ of the repository that the working folder is in, and NATS in the version of its go.mod. What is built or fetched lies in the user's cache
// folder, under a name made from its versions.
//
// It first writes what it is going to install, and then every 10 s how far it is; when nothing is
// missing it writes nothing. What cannot be installed on this machine is named with the ways to go
// on without it. One failure does not stop the rest. Install may be called concurrently, also from
// several processes.
func Install(ctx context.Context, out io.Writer, names ...string) error {
	missing := map[string]recipe{}
	for _, name := range names {
		r, err := recipeOf(name)
		if err != nil {
			return err
		}
		if _, err := r.look(); err != nil {
			missing[name] = r
		}
	}
	b := &installer{out: out, interval: progressInterval, blocked: aptBlocked, apt: apt}
	return b.install(ctx, missing)
}

// An installer follows recipes and shows how far they are.
type installer struct {
	out      io.Writer
	interval time.Duration
	blocked  func() error // why Debian packages cannot be installed
	apt      func(ctx context.Context, packages []string, progress func(line string)) error

	begun time.Time
	mu    sync.Mutex // also of out
	last  map[string]string
}

// install installs Debian packages in one call of apt, and everything else side by side.
func (b *installer) install(ctx context.Context, missing map[string]recipe) error {
	b.begun, b.last = time.Now(), map[string]string{}
	packages, refused := b.announce(missing)
	aptDone := make(chan struct{})
	installed := func() error {
		<-aptDone
		return refused
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(aptDone)
		if len(packages) > 0 && refused == nil {
			refused = b.report("apt-get", func(progress func(string)) error { return b.apt(ctx, packages, progress) })
		}
	})
	errs := make([]error, len(missing))
	for i, name := range slices.Sorted(maps.Keys(missing)) {
		wg.Go(func() {
			errs[i] = b.report(name, func(progress func(string)) error {
				return missing[name].follow(ctx, name, installed, progress)
			})
		})
	}
	done := make(chan struct{})
	go b.tick(done)
	wg.Wait()
	close(done)
	return errors.Join(errs...)
}

// needed returns the Debian packages that are not there.
func (r recipe) needed() (names []string) {
	for _, p := range r.debian {
		if p.there == nil || !p.there() {
			names = append(names, p.name)
		}
	}
	return names
}

// follow waits for packages, fetches what is none, and looks whether everything is there now.
func (r recipe) follow(ctx context.Context, name string, packages func() error, progress func(line string)) (err error) {
	if len(r.needed()) > 0 {
		progress("waits for apt-get")
		err = packages()
	}
	fetch := r.fetch
	if fetch == nil && r.product.name != "" {
		fetch = r.product.fetch
	}
	if err == nil && fetch != nil {
		progress("under way")
		err = fetch(ctx, progress)
	}
	if err != nil {
		return fmt.Errorf("servers: install %s: %w", name, err)
	}
	if _, err := r.look(); err != nil {
		return fmt.Errorf("servers: %s was installed, and still: %w", name, err)
	}
	return nil
}

// announce says what is going to be installed and what cannot be. It returns the Debian packages,
// and why they are refused.
func (b *installer) announce(missing map[string]recipe) (packages []string, refused error) {
	var minutes, gigabytes float64
	var lines, cannot []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		r := missing[name]
		needed := r.needed()
		if len(needed) > 0 && len(packages) == 0 {
			refused = b.blocked()
		}
		packages = append(packages, needed...)
		if len(needed) > 0 && refused != nil {
			cannot = append(cannot, fmt.Sprintf("%s (what Debian calls %s)", name, strings.Join(needed, ", ")))
			continue
		}
		from := r.product.from
		if len(needed) > 0 {
			from = strings.TrimSuffix("Debian's "+strings.Join(needed, ", ")+"; "+from, "; ")
		}
		lines = append(lines, fmt.Sprintf("  %-10s %4.1f min %4.1f GB  %s\n", name, r.minutes, r.gigabytes, from))
		minutes, gigabytes = minutes+r.minutes, gigabytes+r.gigabytes
	}
	if len(lines) > 0 {
		fmt.Fprintf(b.out, "to be installed, about %.0f minutes on 2 cores and %.1f GB when nothing is cached:\n%s",
			max(1, minutes), gigabytes, strings.Join(lines, ""))
	}
	if len(cannot) > 0 {
		fmt.Fprintf(b.out, "cannot be installed here, since %v: %s\n%s", refused, strings.Join(cannot, ", "), ways)
	}
	return packages, refused
}

// ways are how to go on where something cannot be installed.
const ways = `Install that by hand, or go on without it in one of two ways:
  docker compose up --wait    runs servers in containers, see compose.yaml. KAPTAR_TEST_POSTGRES=postgres://… and the like
                              lead tests there; those that kill a server, or need what has no container, are skipped.
  make test-short             runs the tests that need Go alone.
`

// report runs f, keeps the last line of its progress for the next tick, and writes how it ended.
func (b *installer) report(name string, f func(progress func(line string)) error) error {
	err := f(func(line string) {
		line = strings.TrimSpace(line)
		if line = line[strings.LastIndexByte(line, '\r')+1:]; line != "" { // of one written over itself the last state
			b.mu.Lock()
			defer b.mu.Unlock()
			b.last[name] = line
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, name)
	if err != nil {
		b.line(name, "FAILED")
	} else {
		b.line(name, "ok")
	}
	return err
}

// tick writes what is new at each interval, and at least what is under way, until done is closed.
func (b *installer) tick(done <-chan struct{}) {
	ticker := time.NewTicker(b.interval)
	defer ticker.Stop()
	shown := map[string]string{}
	for {
		select {
		case <-ticker.C:
			b.mu.Lock()
			names, news := slices.Sorted(maps.Keys(b.last)), false
			for _, name := range names {
				if line := []rune(b.last[name]); shown[name] != b.last[name] {
					b.line(name, string(line[:min(len(line), 90)]))
					news = true
				}
			}
			if !news {
				b.line("", "under way: "+strings.Join(names, ", "))
			}
			shown = maps.Clone(b.last)
			b.mu.Unlock()
		case <-done:
			return
		}
	}
}

// line writes a line with the time that has passed. The caller holds the lock.
func (b *installer) line(name, text string) {
	fmt.Fprintf(b.out, "%5.0f s  %-10s %s\n", time.Since(b.begun).Seconds(), name, text)
}

// aptBlocked says why Debian packages cannot be installed here. Nil: they can.
func aptBlocked() error {
	if !onPath("apt-get")() {
		return errors.New("there is no apt-get")
	}
	if os.Geteuid() != 0 && exec.Command("sudo", "-n", "true").Run() != nil {
		return errors.New("this user is not root and has no sudo without a password")
	}
	return nil
}

// aptScript installs packages ("$@"). Their services are not started: the tests start their own. A
// list of packages that is missing or too old makes the first try fail.
const aptScript = `
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "$@" </dev/null 2>&1; }
install "$@" || { apt-get update -q 2>&1 && install "$@"; }
`

func apt(ctx context.Context, packages []string, progress func(line string)) error {
	command := append([]string{"sh", "-c", aptScript, "sh"}, packages...)
	if os.Geteuid() != 0 {
		command = append([]string{"sudo", "-n"}, command...)
	}
	lock, err := cached("apt.lock")
	if err != nil {
		return err
	}
	return locked(lock, func() error {
		return follow(exec.CommandContext(ctx, command[0], command[1:]...), progress)
	})
}
