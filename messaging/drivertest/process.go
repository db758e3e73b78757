package drivertest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"

	"github.com/kaptar/kaptar/messaging/driver"
)

// processEnv has what a member in a process of its own is to do.
const processEnv = "KAPTAR_DRIVERTEST_MEMBER"

type order struct {
	URL string
	Sub driver.Subscription
}

// Process makes a test binary that a case has started a member of a group, until it is killed; else
// it returns at once. Call it first in TestMain, for Harness.ProcessURL.
func Process(open func(ctx context.Context, url string) (driver.Broker, error)) {
	text := os.Getenv(processEnv)
	if text == "" {
		return
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	var b driver.Broker
	if err == nil {
		b, err = open(context.Background(), o.URL)
	}
	if err == nil {
		err = b.Subscribe(context.Background(), o.Sub, func(d driver.Delivery) { fmt.Println("got", d.ID) }) //nolint:forbidigo // the parent reads it
	}
	fmt.Fprintln(os.Stderr, "member:", err)
	os.Exit(1)
}

// A deadMember is a member in a process that acknowledges nothing and is to be killed.
type deadMember struct {
	e    *env
	cmd  *exec.Cmd
	some atomic.Bool
}

func (e *env) startMember() *deadMember {
	e.Helper()
	text, err := json.Marshal(order{e.ProcessURL, e.ordered()})
	if err != nil {
		e.Fatal(err)
	}
	cmd := exec.CommandContext(e.Context(), os.Args[0]) //nolint:gosec // this binary
	cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	m := &deadMember{e: e, cmd: cmd}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.some.Store(true)
		}
	}()
	return m
}

func (m *deadMember) has() bool { return m.some.Load() }

func (m *deadMember) kill() {
	m.e.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		m.e.Fatal(err)
	}
	_ = m.cmd.Wait() // it was killed
}
