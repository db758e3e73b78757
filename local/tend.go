package local

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/telemetry"
)

const (
	tendEvery = 2 * time.Second // how often the embedded broker is asked whether it can store messages
	room      = 4 << 20         // bytes that must be free before it is started again
)

// brokerLog returns the log for the embedded broker's warnings and errors.
func (o *Options) brokerLog(ctx context.Context, settings *config.Config, services []kaptar.Service) *slog.Logger {
	first := config.Of[kaptar.Settings](settings, services[0].Name)
	tel, err := telemetry.New(ctx, telemetry.Options{Service: "broker", Log: telemetry.LogOptions{
		Output: cmp.Or[io.Writer](o.Log, os.Stderr), Format: first.LogFormat, Level: first.Level(),
	}})
	if err != nil { // of an exporter, and none is asked for
		return slog.Default()
	}
	return tel.Logger()
}

// tend restarts the server when it can no longer store messages, as soon as the disk has room.
// After a failed write the server does not answer publishers until it is restarted.
func (e *embedded) tend() {
	outage := steady.Outage{What: "embedded broker's store", Log: e.log, Attrs: []slog.Attr{slog.String("dir", e.dir)}}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		<-e.over
		end()
	}()
	backoff := steady.Backoff{First: tendEvery, Max: time.Minute}
	for wait := tendEvery; steady.Sleep(ctx, wait); {
		wait = tendEvery
		again, err := e.failing()
		if err == nil {
			outage.Back(ctx)
			backoff.Reset()
			continue
		}
		outage.Lost(ctx, err)
		if !again {
			continue
		}
		if err := hasRoom(e.dir); err != nil {
			continue
		}
		if err := e.restart(ctx); err != nil && ctx.Err() == nil {
			outage.Lost(ctx, err)
		}
		wait = backoff.Next()
	}
}

// failing returns what is wrong with the server, and whether a restart may help.
func (e *embedded) failing() (again bool, err error) {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return true, errors.New("the server could not be started again")
	}
	health := s.Healthz(&server.HealthzOptions{})
	if health.StatusCode == http.StatusOK || health.Error == "" && health.Status == "ok" {
		return false, nil
	}
	return strings.Contains(health.Error, "write error") || !s.JetStreamEnabled(), errors.New(health.Error)
}

// restart does nothing after stop.
func (e *embedded) restart(ctx context.Context) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	if e.server != nil {
		shutDown(e.server)
	}
	e.server, err = e.open(ctx)
	return err
}

// hasRoom returns an error while a file of some size cannot be written to dir.
func hasRoom(dir string) error {
	name := filepath.Join(dir, "room")
	defer func() { _ = os.Remove(name) }()
	return os.WriteFile(name, make([]byte, room), 0o600)
}

// open starts the server. The server leaves out consumer groups whose state is damaged, and cannot
// make them again while their folders exist. So these are moved to the folder "damaged", and the
// server is started once more. A group whose position is damaged starts again from where it first
// began; services recognise the events that they have handled.
func (e *embedded) open(ctx context.Context) (*server.Server, error) {
	for try := 0; ; try++ {
		s, err := startNATS(ctx, e.listen, e.password, e.dir, e.log)
		if err != nil {
			return nil, err
		}
		damaged := e.damaged(s)
		if len(damaged) == 0 || try == 2 {
			return s, nil
		}
		shutDown(s)
		for _, dir := range damaged {
			what := dir
			if state := filepath.Join(dir, "o.dat"); try == 0 && isFile(state) {
				what = state
			}
			to := filepath.Join(e.dir, "damaged", strconv.FormatInt(time.Now().UnixNano(), 10), strings.TrimPrefix(what, e.dir))
			err := os.MkdirAll(filepath.Dir(to), 0o700)
			if err == nil {
				err = os.Rename(what, to)
			}
			e.log.ErrorContext(ctx, "embedded broker: the state of a consumer group is damaged: it is put aside, and the group gets events again",
				"from", what, "to", to, "error", err)
		}
	}
}

// damaged returns the folders of consumers that the server has not recovered.
func (e *embedded) damaged(s *server.Server) (list []string) {
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true})
	if err != nil {
		return nil
	}
	known := make(map[string]bool) // stream/consumer
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			known[stream.Name] = true
			for _, c := range stream.Consumer {
				known[stream.Name+"/"+c.Name] = true
			}
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(e.dir, "jetstream", "*", "streams", "*", "obs", "*"))
	return slices.DeleteFunc(dirs, func(dir string) bool {
		stream := filepath.Base(filepath.Dir(filepath.Dir(dir)))
		return !known[stream] || known[stream+"/"+filepath.Base(dir)]
	})
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
