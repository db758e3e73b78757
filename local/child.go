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

// childFlag is the only argument of a service's process; it names the service in process lists. The
// rest comes through a pipe, because it has secrets that nobody else may read.
const childFlag = "--split-service="

// childInput is the input of a service's process.
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

// A report is a message from a service's process to its supervisor: that it is ready, or the error
// with which it ends.
type report struct {
	PID   int                 `json:"pid"`
	Ready *discovery.Instance `json:"ready,omitempty"`
	Error string              `json:"error,omitempty"`
}

// runChild runs the named service for the supervisor that has started it; it returns the exit code.
func runChild(name string, services []kaptar.Service) int {
	var in childInput
	lost, files, err := proc.Parent(&in, childFiles)
	if err != nil {
		fmt.Fprintf(os.Stderr, "local: %s%s is for the processes that --split starts (%v): use the command run instead, as in %q\n",
			childFlag, name, err, "run "+name)
		return 2
	}
	defer func() { _ = files[lockFile].Close() }()
	// Without this, when the supervisor is gone, a line on standard error would kill the process
	// before it has stopped.
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

// follow stops this process when the supervisor ends: gracefully, or at once if it was stopping.
func follow(ctx context.Context, stop func(), lost <-chan struct{}, timeout time.Duration) {
	<-lost
	if ctx.Err() != nil {
		proc.KillOwnGroup()
	}
	time.AfterFunc(timeout, proc.KillOwnGroup)
	stop()
}

// A childLog is the log output of a service's process.
type childLog struct {
	*os.File
	terminal bool
}

// IsTerminal reports whether the log ends at a terminal (see telemetry.LogOptions).
func (l *childLog) IsTerminal() bool { return l.terminal }
