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
	settings, err := load(opts.Sources, services)
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
	tel, err := telemetry.New(ctx, telemetry.Options{Service: "supervisor", Log: telemetry.LogOptions{
		Output: logs, Format: settings[0].LogFormat, Level: settings[0].Level(),
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
	for i, service := range services {
		s.names = append(s.names, service.Name)
		s.patience = max(s.patience, settings[i].ShutdownTimeout+stopExtra)
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

// load reads the settings of all services, so that their mistakes are reported
// together and before anything starts. What it fills is not used here: each process
// reads its own.
func load(src config.Sources, services []kaptar.Service) ([]*kaptar.Settings, error) {
	var targets []config.Target
	var settings []*kaptar.Settings
	for _, s := range services {
		own := new(kaptar.Settings)
		settings = append(settings, own)
		targets = append(targets, config.Target{Service: s.Name, Into: own})
		if s.Settings != nil {
			targets = append(targets, config.Target{Service: s.Name, Into: s.Settings})
		}
	}
	_, err := config.Load(src, targets...)
	return settings, err
}

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
