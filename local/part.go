//go:build unix

package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

// runPart runs the service of this process for the supervisor that started it.
func (e *Engine) runPart(ctx context.Context, opts *kaptar.Options, services []kaptar.Service) error {
	files, err := partFiles()
	if err != nil {
		return err
	}
	leash, reports, log := files[0], json.NewEncoder(files[1]), files[2]
	// Without this a line on standard error would end the process, half stopped,
	// when the supervisor is gone.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var own, others []kaptar.Service
	for _, s := range services {
		if s.Name == e.part.service {
			own = append(own, s)
		} else {
			others = append(others, s)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var patience atomic.Int64
	patience.Store(int64(10*time.Second + stopExtra)) // until the settings are known
	go follow(ctx, cancel, leash, &patience)
	err = kaptar.Run(ctx, &kaptar.Options{
		Sources: opts.Sources, Others: others,
		Log: &frames{w: log, terminal: e.part.terminal},
		Prepare: func(_ context.Context, settings *config.Config) (func(context.Context) error, error) {
			patience.Store(int64(config.Of[kaptar.Settings](settings, e.part.service).ShutdownTimeout + stopExtra))
			return nil, nil
		},
		Ready: func(all []kaptar.Endpoint) { _ = reports.Encode(report{Ready: &all[0]}) }, // or the leash tells
	}, own...)
	if err == nil || reports.Encode(report{Error: err.Error()}) != nil {
		return err
	}
	os.Exit(1) //nolint:gocritic // exitAfterDefer: nothing that cancel ends outlives this; without printing the error: the supervisor does
	return nil
}

// follow stops this process when the supervisor has ended: gracefully, unless it
// was stopping already, which means that somebody is in a hurry.
func follow(ctx context.Context, cancel func(), leash io.Reader, patience *atomic.Int64) {
	_, _ = io.Copy(io.Discard, leash) // ends when the other end is closed
	if ctx.Err() != nil {
		os.Exit(130)
	}
	time.AfterFunc(time.Duration(patience.Load()), func() { os.Exit(1) })
	cancel()
}

// partFiles returns the files that the supervisor has opened for this process.
func partFiles() (files []*os.File, err error) {
	for fd := leashFile; fd <= logFile; fd++ {
		syscall.CloseOnExec(fd) // what a service starts must not hold them
		f := os.NewFile(uintptr(fd), fmt.Sprintf("|%d", fd))
		if info, err := f.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			return nil, fmt.Errorf("local: --%s is for the processes that --split starts: use the command run instead, as in %q", partFlag, "run user-service")
		}
		files = append(files, f)
	}
	return files, nil
}
