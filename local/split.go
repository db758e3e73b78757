//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/telemetry"
)

// runSplit checks the settings of all services, starts the engines and supervises
// a process for each service.
func (e *Engine) runSplit(ctx context.Context, opts *kaptar.Options, stdout io.Writer, services []kaptar.Service) (err error) {
	// Each process reads its own: here the mistakes of all are reported before anything starts.
	settings, err := kaptar.LoadSettings(opts.Sources, services, opts.Others)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("local: --split: %w", err)
	}
	stopEngines, err := e.Prepare(ctx, settings)
	if err != nil {
		return err
	}
	// The broker is the last to go: the services still need it while they stop.
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopExtra)
		defer cancel()
		err = errors.Join(err, stopEngines(stopping))
	}()
	output := new(sync.Mutex)
	logs := &joint{mu: output, w: opts.Log, terminal: isTerminal(opts.Log)}
	first := config.Of[kaptar.Settings](settings, services[0].Name)
	tel, err := telemetry.New(ctx, telemetry.Options{Service: "supervisor", Log: telemetry.LogOptions{
		Output: logs, Format: first.LogFormat, Level: first.Level(),
	}})
	if err != nil {
		return fmt.Errorf("local: --split: %w", err)
	}
	s := &supervisor{
		log: tel.Logger(), logs: logs, stdout: &joint{mu: output, w: stdout},
		command: func(service string) *exec.Cmd {
			cmd := exec.Command(self, e.partArgs(service, opts.Sources, logs.terminal)...) //nolint:gosec // G204: this program itself
			cmd.Env = opts.Sources.Env
			return cmd
		},
	}
	for _, service := range services {
		s.names = append(s.names, service.Name)
		s.patience = max(s.patience, config.Of[kaptar.Settings](settings, service.Name).ShutdownTimeout+stopExtra)
	}
	s.ready = func(all []kaptar.Endpoint, pids map[string]int) {
		fmt.Fprint(s.stdout, screen(all, pids, e.runningBroker(), e.dir()))
	}
	e.setAbort(s.abort)
	defer e.setAbort(nil)
	return s.run(ctx)
}

// stopExtra is what a process has beyond its shutdown_timeout before it is killed.
const stopExtra = 2 * time.Second

// partArgs is the command line of a service's process: it repeats what the user
// typed, and the defaults come from the Engine there, so that both have the rank
// that they have in one process.
func (e *Engine) partArgs(service string, src config.Sources, terminal bool) []string {
	args := []string{"--" + partFlag + "=" + service, "--data-dir=" + e.dir(), "--nats-listen=" + e.natsListen()}
	if terminal {
		args = append(args, "--"+terminalFlag)
	}
	if src.File != "" {
		args = append(args, "--config="+src.File)
	}
	for _, key := range slices.Sorted(maps.Keys(src.Flags)) {
		args = append(args, "--set="+key+"="+src.Flags[key])
	}
	return args
}
