package kaptar

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/internal/schedule"
)

// Due is a time at which a schedule is due.
type Due struct {
	At time.Time
	// Missed is how many times before At have passed since the last run without one: while no instance
	// ran, or the last run took longer than it is to the next.
	Missed int
}

const leastEvery = time.Second

// Every has run called each time that every, one second or more, has passed since it was last due, for
// the first time after every. How long a run takes moves nothing. name is for the log, the metrics and
// the database, and stays the same.
//
// One instance of all on the service's database runs it: see sqldb.TryLease; another takes over within
// some 5 seconds. When it was last due is in the database (table kaptar_schedules), so that a restart
// changes nothing, and times that passed without a run come as one run that is told how many. A run is
// not begun beside another of its name in the process.
//
// An error or a panic is logged and counted, and the next run comes when it is due. A run that was
// broken off, by a crash or because its ctx ended with the service, is begun again at the next start:
// it has to bear that. The service waits for its end when it stops. Clocks that are set are borne: a
// time that has come does not come again, unless it is further in the future than it is to the next.
//
// Call it during Setup, with a database set. Counted are schedule_runs_total and
// schedule_last_success_timestamp_seconds.
func (a *App) Every(name string, every time.Duration, run func(ctx context.Context, due Due) error) error {
	if every < leastEvery {
		return fmt.Errorf("kaptar: schedule %s: every %v: expected %v or more", name, every, leastEvery)
	}
	return a.schedule(schedule.Job{Name: name, Spec: "every " + every.String(), Next: schedule.Every(every)}, run)
}

// Cron is Every for the times of a specification of cron: minute, hour, day, month and weekday, such
// as "30 4 * * mon-fri" or "*/15 * * * *", or @hourly, @daily, @weekly, @monthly or @yearly. They are
// in UTC, unless it begins with a zone: "CRON_TZ=Europe/Berlin 30 4 * * *". A time that the zone's
// clock skips in spring is due after the gap. One that comes twice in autumn is due the first time,
// unless the hour is *.
func (a *App) Cron(name, spec string, run func(ctx context.Context, due Due) error) error {
	c, err := schedule.Parse(spec)
	if err != nil {
		return fmt.Errorf("kaptar: schedule %s: %w", name, err)
	}
	return a.schedule(schedule.Job{Name: name, Spec: spec, Next: c.Next}, run)
}

type schedulesKey struct{}

// schedules are all of one service.
type schedules struct {
	runner  schedule.Runner
	runs    *prometheus.CounterVec
	success *prometheus.GaugeVec
}

func (a *App) schedule(job schedule.Job, run func(context.Context, Due) error) error {
	s, err := Attach(a, schedulesKey{}, a.openSchedules)
	if err != nil {
		return fmt.Errorf("kaptar: schedule %s: %w", job.Name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if job.Name == "" || slices.ContainsFunc(s.runner.Jobs, func(j schedule.Job) bool { return j.Name == job.Name }) {
		return fmt.Errorf("kaptar: schedule %q: expected a name that no other schedule of %s has", job.Name, a.Name())
	}
	job.Run = func(ctx context.Context, at time.Time, missed int) error {
		ctx, span := a.Tracer().Start(ctx, "schedule "+job.Name)
		defer span.End()
		return run(ctx, Due{At: at, Missed: missed})
	}
	s.runner.Jobs = append(s.runner.Jobs, job)
	for _, outcome := range []string{"ok", "error"} { // 0 until then, so that a rate can be seen from the first
		s.runs.WithLabelValues(job.Name, outcome)
	}
	return nil
}

func (a *App) openSchedules() (*schedules, error) {
	db, err := a.DB(nil)
	if err != nil {
		return nil, err
	}
	if err := schedule.Migrate(a.Context(), db); err != nil {
		return nil, err
	}
	service := prometheus.Labels{"service": a.Name()}
	s := &schedules{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "schedule_runs_total", ConstLabels: service,
			Help: "Runs of schedules that ended here, by outcome: ok or error.",
		}, []string{"schedule", "outcome"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "schedule_last_success_timestamp_seconds", ConstLabels: service,
			Help: "When a run of the schedule last ended well here.",
		}, []string{"schedule"}),
	}
	a.Metrics().MustRegister(s.runs, s.success)
	s.runner = schedule.Runner{DB: db, Now: time.Now, Log: a.Logger(), Ran: s.ran}
	a.Go("schedules", s.runner.Run)
	return s, nil
}

func (s *schedules) ran(job string, err error) {
	if err != nil {
		s.runs.WithLabelValues(job, "error").Inc()
		return
	}
	s.runs.WithLabelValues(job, "ok").Inc()
	s.success.WithLabelValues(job).SetToCurrentTime()
}
