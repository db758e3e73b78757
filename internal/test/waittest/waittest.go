// Package waittest has what many tests need to wait for other goroutines and processes, where no
// bubble of synctest reaches.
package waittest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// Until asks every 5 ms whether it is done, and ends the test with what when that takes a minute.
func Until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	Said(tb, func() string {
		if done() {
			return ""
		}
		return what
	})
}

// Said asks every 5 ms until check returns "", and ends the test with what it said last when that
// takes a minute.
func Said(tb testing.TB, check func() string) {
	tb.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		said := check()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			tb.Fatalf("waited a minute for this: %s", said)
		}
	}
}

// A Buffer is a bytes.Buffer for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Reset drops it.
func (b *Buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// Outages reads the lines that a steady.Outage of what has logged: how many outages began, how many
// ended, and how many lines are of something else. One outage has a line for each reason, if the
// reasons are more than some seconds apart, as on a slow machine.
func Outages(log, what string) (begun, ended, others int) {
	for line := range strings.Lines(log) {
		switch {
		case strings.Contains(line, what+" is back"):
			ended++
		case !strings.Contains(line, what+" lost"):
			others++
		case begun == ended:
			begun++
		}
	}
	return begun, ended, others
}
