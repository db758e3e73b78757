package nats_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// registrantURL makes this test binary a process that registers and waits to be killed.
const (
	registrantURL = "KAPTAR_TEST_REGISTRANT_URL"
	registrantID  = "KAPTAR_TEST_REGISTRANT_ID"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(registrantURL); url != "" {
		registrant(url)
		return
	}
	drivertest.Process(func(ctx context.Context, url string) (driver.Broker, error) { return openBroker(ctx, url, nil) })
	servertest.Main(m)
}

func registrant(url string) {
	backend, err := nats.Open(context.Background(), url, nil)
	if err == nil {
		r, _ := backend.Registry()
		err = r.Register(context.Background(), discovery.Instance{ID: os.Getenv(registrantID), Service: "s", HTTP: "10.0.0.1:8081"})
	}
	fmt.Println("registered:", err)
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the parent at the latest
}

// startRegistrant runs a process that has registered.
func startRegistrant(t *testing.T, url, id string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), registrantURL+"="+url, registrantID+"="+id)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "registered: <nil>\n" {
		t.Fatalf("the registrant said %q, %v, want that it is registered", line, err)
	}
	return func() {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
}

// TestGhosts: killed three times and started again on one port, a process is listed once, long
// before the times of the killed ones are over.
func TestGhosts(t *testing.T) {
	t.Parallel()
	url := servertest.Start(t, servers.NATS).URL() + "?ttl=1h"
	r := openRegistry(t, url)
	f := followInstances(t, r, "s")
	for run := range 4 {
		kill := startRegistrant(t, url, fmt.Sprint("run-", run))
		f.until(fmt.Sprint("run-", run))
		kill()
	}
}

// TestKilledProcess: an instance whose process is killed disappears within its time, for those that
// watched before and for those that come after, and not soon after its last sign of life.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	const ttl = testTTL
	server := servertest.Start(t, servers.NATS)
	url := server.URL() + "?ttl=" + ttl.String()
	early, steady := openRegistry(t, url), openRegistry(t, url)
	f := followInstances(t, early, "s")
	f.until("")
	followInstances(t, steady, "other").until("") // knows that the bucket answers
	kill := startRegistrant(t, url, "killed")
	f.until("killed")
	f.quiet(ttl+ttl/2, "while the process ran") // it is refreshed, and the watchers know the bucket for long enough
	start := time.Now()
	kill()
	g := followInstances(t, steady, "s")
	g.until("killed")
	f.until("")
	took := time.Since(start)
	g.until("")
	tookLater := time.Since(start)
	const slack = 5 * time.Second // the server looks once a second, and the machine may be busy
	if took < ttl/4 || took > ttl+slack || tookLater > ttl+slack {
		t.Errorf("the killed instance was listed for %v, and for %v at a watcher that came later, want %v at most", took, tookLater, ttl)
	}
	t.Logf("gone after %v, and %v at a watcher that came later", took, tookLater)
}
