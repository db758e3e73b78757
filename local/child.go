//go:build unix

package local

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/proc"
)

// childFlag is the one argument of a service's process, for whoever reads a list of processes. What
// it has to know comes through a pipe, where nobody else can read the secrets in it.
const childFlag = "--split-service="

// childInput is what a service's process is told.
type childInput struct {
	Sources  config.Sources
	Terminal bool          // whether people read the log where it goes in the end
	Timeout  time.Duration // of a stop, when the supervisor has ended
}

// The files that a service's process finds open, beside its standard ones.
const (
	reportFile = iota // to write a report to, as JSON, when there is one
	logFile           // to write the log to
	lockFile          // the data directory's: it is taken as long as a process of the program runs
	childFiles
)

// A report is what a service's process tells its supervisor: that it is ready, or the error that it
// ends with.
type report struct {
	PID   int                 `json:"pid"`
	Ready *discovery.Instance `json:"ready,omitempty"`
	Error string              `json:"error,omitempty"`
}

// runChild runs the service of that name for the supervisor that has started this process, and
// returns the exit code.
func runChild(name string, services []kaptar.Service) int {
	var in childInput
	lost, files, err := proc.Parent(&in, childFiles)
	if err != nil {
		fmt.Fprintf(os.Stderr, "local: %s%s is for the processes that --split starts (%v): use the command run instead, as in %q\n",
			childFlag, name, err, "run "+name)
		return 2
	}
	defer func() { _ = files[lockFile].Close() }()
	// Without this a line on standard error would end the process, half stopped, when the
	// supervisor is gone.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	go follow(ctx, cancel, lost, in.Timeout)
	opts := &kaptar.Options{Sources: in.Sources, Log: &childLog{files[logFile], in.Terminal}}
	var own []kaptar.Service
	for _, s := range services {
		if s.Name == name {
			own = append(own, s)
		} else {
			opts.Others = append(opts.Others, s)
		}
	}
	reports := json.NewEncoder(files[reportFile]) // which fails when the supervisor is gone, as lost tells
	opts.Ready = func(all []discovery.Instance) { _ = reports.Encode(report{PID: os.Getpid(), Ready: &all[0]}) }
	if err := kaptar.Run(ctx, opts, own...); err != nil {
		_ = reports.Encode(report{PID: os.Getpid(), Error: err.Error()})
		return 1
	}
	return 0
}

// follow stops this process when the supervisor has ended: gracefully, unless it was stopping
// already, which means that somebody wants it to stop at once.
func follow(ctx context.Context, stop func(), lost <-chan struct{}, timeout time.Duration) {
	<-lost
	if ctx.Err() != nil {
		proc.KillOwnGroup()
	}
	time.AfterFunc(timeout, proc.KillOwnGroup)
	stop()
}

// A childLog is where a service's process logs to.
type childLog struct {
	*os.File
	terminal bool
}

// IsTerminal reports whether people read the log (see telemetry.LogOptions).
func (l *childLog) IsTerminal() bool { return l.terminal }
