package natskv_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/nats/registry"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// registrantURL makes this test binary a process that registers and waits to be killed.
const registrantURL = "KAPTAR_TEST_REGISTRANT_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(registrantURL); url != "" {
		registrant(url)
		return
	}
	os.Exit(m.Run())
}

func registrant(url string) {
	r, err := natskv.Open(context.Background(), url, nil)
	if err == nil {
		err = r.Register(context.Background(), discovery.Instance{ID: "killed", Service: "s"})
	}
	fmt.Println("registered:", err)
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the parent at the latest
}

// TestKilledProcess: an instance whose process is killed disappears within its time, for those that watched before and for those that
// come after, and not before the time is half over.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	const ttl = 6 * time.Second
	server := servertest.Start(t, servers.NATS)
	url := server.URL() + "?ttl=" + ttl.String()
	early, steady := open(t, url), open(t, url)
	f := follow(t, early, "s")
	f.until("")
	follow(t, steady, "other").until("") // knows that the bucket answers
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), registrantURL+"="+url)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
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
	f.until("killed")
	f.quiet(ttl+ttl/2, "while the process ran") // it is refreshed, and the watchers know the bucket for long enough
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	g := follow(t, steady, "s")
	g.until("killed")
	f.until("")
	took := time.Since(start)
	g.until("")
	tookLater := time.Since(start)
	const slack = 2 * time.Second // the server looks once a second, and the machine may be busy
	if took < ttl/2 || took > ttl+slack || tookLater > ttl+slack {
		t.Errorf("the killed instance was listed for %v, and for %v at a watcher that came later, want %v at most", took, tookLater, ttl)
	}
	t.Logf("gone after %v, and %v at a watcher that came later", took, tookLater)
}
