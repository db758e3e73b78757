package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// instancesEach is how many processes of each service a fleet has.
const instancesEach = 3

// A fleet is a site with more processes of each service: the site's own is the first of them.
type fleet struct {
	*site
	more []*install // where the further processes listen, and what they read
}

// knownKeys are the settings by which services that are started alone know each other and the
// operator.
func knownKeys(operator string) string {
	return fmt.Sprintf("auth:\n  internal_keys: [%s]\n  keys:\n    operator: {sha256: %x, scopes: ['*']}\n", internalKeys, sha256.Sum256([]byte(operator)))
}

// openFleet starts the shop in the shape, which is not that of one process, and then the other
// processes of each service. extra is YAML for all of them.
func openFleet(t *testing.T, sh *shape, extra string) *fleet {
	t.Helper()
	own := ""
	if sh.name == splitShape { // which makes its own
		own = fmt.Sprintf("auth:\n  internal_keys: [%s]\n", internalKeys)
	}
	f := &fleet{site: openSite(t, sh, own+extra)}
	settings := f.in.Extra
	if sh.name == splitShape {
		settings = knownKeys(f.in.operator()) + extra + fmt.Sprintf("broker_url: %q\ndiscovery_url: %q\nredis_host: ''\ndemo: true\n", f.in.brokerURL(t)+fastAckWait, f.in.brokerURL(t))
	}
	var starting sync.WaitGroup
	for n := range instancesEach - 1 {
		in := newInstall(t, binary)
		in.Extra, in.Databases = settings, make(map[string]string)
		for _, service := range serviceNames() {
			in.Databases[service] = f.database(f.site, service)
		}
		f.more = append(f.more, in)
		for _, service := range served() {
			starting.Go(func() { f.startNth(t, service, n+1) })
		}
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return f
}

// at is the address of the n-th process of a service.
func (f *fleet) at(service string, n int) string {
	if n == 0 {
		return f.in.HTTP(service)
	}
	return f.more[n-1].HTTP(service)
}

// startNth starts the n-th process of a service and returns when it is ready.
func (f *fleet) startNth(t *testing.T, service string, n int) {
	if n == 0 && f.name == realShape {
		f.alone(t, service)
		return
	}
	p, err := f.more[n-1].Run(context.Background(), service)
	if err != nil {
		t.Errorf("%s, process %d: %v", service, n, err)
		return
	}
	f.put(nth(service, n), p)
}

// nth is the name of a process that is the n-th of its service.
func nth(service string, n int) string {
	if n == 0 {
		return service
	}
	return fmt.Sprint(service, "-", n)
}

// restart ends the n-th process of a service with SIGTERM, which has to end well, and starts it
// again. It returns when the new one is ready.
func (f *fleet) restart(t *testing.T, service string, n int) {
	t.Helper()
	if n == 0 && f.name == splitShape {
		f.restartPart(t, service)
		return
	}
	p := f.proc(nth(service, n))
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM to %s: %v", service, err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("%s, process %d, goes on after SIGTERM:\n%s", service, n, tail(p.Log()))
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%s, process %d, after SIGTERM: %v; its log:\n%s", service, n, err, tail(p.Log()))
	}
	f.startNth(t, service, n)
}

// restartPart is restart for the process that the supervisor keeps.
func (f *fleet) restartPart(t *testing.T, service string) {
	t.Helper()
	pid := f.proc(everything).ServicePID(service)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM to %s, process %d: %v", service, pid, err)
	}
	f.mu.Lock()
	f.killed[service] = pid
	f.mu.Unlock()
	revivePart(t, f.site, service)
}

// stop stops all processes gracefully: the supervisor, which has the broker, after the others.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	for _, service := range served() {
		for n := range f.more {
			if err := f.proc(nth(service, n+1)).Signal(syscall.SIGTERM); err != nil {
				t.Fatalf("SIGTERM to %s: %v", service, err)
			}
		}
	}
	for _, service := range served() {
		for n := range f.more {
			f.mu.Lock()
			p := f.procs[nth(service, n+1)]
			delete(f.procs, nth(service, n+1))
			f.mu.Unlock()
			if err := p.Wait(); err != nil {
				t.Errorf("%s, process %d, after SIGTERM: %v; its log:\n%s", service, n+1, err, tail(p.Log()))
			}
		}
	}
	f.stopAll(t)
}
