package kaptar_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// A schedule runs as part of a service, is counted, and its run has ended when the service has.
func TestEvery(t *testing.T) {
	t.Parallel()
	runs := make(chan kaptar.Due, 100)
	var ended atomic.Bool
	service := kaptar.Service{Name: "clock", Setup: func(app *kaptar.App) error {
		err := app.Every("tick", time.Second, func(ctx context.Context, due kaptar.Due) error {
			ended.Store(false)
			defer ended.Store(true)
			runs <- due
			if len(runs) == 2 {
				return errors.New("boom")
			}
			return nil
		})
		return errors.Join(err, app.Cron("never", "0 0 29 2 *", nil))
	}}
	file := filepath.Join(t.TempDir(), "clock.db")
	at, stop := start(t, map[string]string{"services.clock.database_url": "sqlite:" + file}, service)
	_, first := get(t, "http://"+at["clock"].HTTP+"/metrics")
	var text string
	waittest.Said(t, func() string {
		_, text = get(t, "http://"+at["clock"].HTTP+"/metrics")
		_, ok, _ := strings.Cut(text, `schedule_runs_total{outcome="ok",schedule="tick",service="clock"} `)
		if ok < "2" {
			return "3 runs, of which 2 were well:\n" + text
		}
		return ""
	})
	if err := stop(); err != nil || !ended.Load() {
		t.Errorf("stop = %v, and the run has ended: %t", err, ended.Load())
	}
	one, two := <-runs, <-runs
	if d := two.At.Sub(one.At); d < time.Second || d%time.Second != 0 {
		t.Errorf("two runs are due %v apart, want a whole number of seconds", d)
	}
	if !strings.Contains(first, `schedule_runs_total{outcome="error",schedule="never",service="clock"} 0`) {
		t.Error("schedules that have not run are not counted as 0")
	}
	for _, want := range []string{`schedule_runs_total{outcome="error",schedule="tick",service="clock"} 1`, `schedule_last_success_timestamp_seconds{schedule="tick",service="clock"} `} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

func TestScheduleErrors(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, kaptar.Due) error { return nil }
	file := filepath.Join(t.TempDir(), "a.db")
	for want, setup := range map[string]func(app *kaptar.App) error{
		"schedule a: every 999ms: expected 1s or more": func(app *kaptar.App) error { return app.Every("a", 999*time.Millisecond, nothing) },
		"schedule a: cron: \"* * *\": has 3 fields":    func(app *kaptar.App) error { return app.Cron("a", "* * *", nothing) },
		"expected a name that no other schedule of a has": func(app *kaptar.App) error {
			return errors.Join(app.Every("a", time.Hour, nothing), app.Cron("a", "@daily", nothing))
		},
		`schedule "": expected a name`: func(app *kaptar.App) error { return app.Every("", time.Hour, nothing) },
	} {
		service := kaptar.Service{Name: "a", Setup: setup}
		err := kaptar.Run(t.Context(), &kaptar.Options{Log: io.Discard, Sources: onFreePorts(map[string]string{"database_url": "sqlite:" + file}, []kaptar.Service{service})}, service)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run = %v, want an error with %q", err, want)
		}
	}
	service := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error { return app.Every("a", time.Hour, nothing) }}
	err := kaptar.Run(t.Context(), &kaptar.Options{Log: io.Discard, Sources: onFreePorts(nil, []kaptar.Service{service})}, service)
	if err == nil || !strings.Contains(err.Error(), "schedule a: kaptar: a needs a database") {
		t.Errorf("Run without a database = %v, want an error that asks for one", err)
	}
}
