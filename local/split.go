//go:build unix

package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/telemetry"
)

// stopExtra is how much longer than its shutdown_timeout a process may take before it is killed.
const stopExtra = 2 * time.Second

// runSplit supervises a process for each service. Each process reads its settings again; they have
// been checked here. store is the URL of the embedded broker, or "" when it does not run.
func (o *Options) runSplit(
	ctx context.Context, settings *config.Config, lock *os.File, store string, ready func([]discovery.Instance, map[string]int), services []kaptar.Service,
) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("local: --split: %w", err)
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	output := new(sync.Mutex)
	logs := &sharedWriter{mu: output, w: o.Log, terminal: cli.IsTerminal(o.Log)}
	first := config.Of[kaptar.Settings](settings, services[0].Name)
	tel, err := telemetry.New(ctx, telemetry.Options{Service: "supervisor", Log: telemetry.LogOptions{
		Output: logs, Format: first.LogFormat, Level: first.Level(),
	}})
	if err != nil {
		return fmt.Errorf("local: --split: %w", err)
	}
	in := childInput{Sources: o.Sources, Terminal: logs.terminal}
	s := &supervisor{log: tel.Logger()}
	for _, service := range services {
		s.names = append(s.names, service.Name)
		in.Timeout = max(in.Timeout, config.Of[kaptar.Settings](settings, service.Name).ShutdownTimeout+stopExtra)
	}
	s.timeout = in.Timeout
	s.start = func(c child, reports io.Writer) (*proc.Process, error) {
		in, path := in, self
		if c.binary != "" {
			in.Sources, path = onFreePorts(in.Sources, settings, c), c.binary
		}
		cmd := exec.Command(path, childFlag+c.service) //nolint:gosec // G204: this program itself, or what its user names
		cmd.Stdout = &proc.Lines{W: &sharedWriter{mu: output, w: os.Stdout}, Prefix: c.name() + ": "}
		cmd.Stderr = &proc.Lines{W: logs, Prefix: c.name() + ": "}
		cmd.ExtraFiles = []*os.File{lock}
		return proc.Start(cmd, &proc.Options{Input: in, Outputs: []io.Writer{reports, &proc.Lines{W: logs}}})
	}
	s.ready = func(all []discovery.Instance, pids map[string]int) {
		output.Lock()
		defer output.Unlock()
		ready(all, pids)
	}
	if store != "" {
		screen := io.Discard
		if o.Screen != nil {
			screen = &sharedWriter{mu: output, w: o.Screen}
		}
		s.beside = (&besides{supervisor: s, url: store, screen: screen, byKey: map[string]beside{}}).follow
	}
	return s.run(ctx)
}

// A sharedWriter is an output of several processes. Writes are not interleaved.
type sharedWriter struct {
	mu       *sync.Mutex // shared by those that lead to the same terminal
	w        io.Writer
	terminal bool
}

// Write implements io.Writer.
func (s *sharedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// IsTerminal reports whether people read the output (see telemetry.LogOptions).
func (s *sharedWriter) IsTerminal() bool { return s.terminal }
