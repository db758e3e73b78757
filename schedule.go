package kaptar

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/internal/schedule"
)

// A Due is one due time of a schedule.
type Due struct {
	At time.Time
	// Missed is the number of due times before At that passed without a run: because no instance
	// ran, or because the previous run took too long. It counts those of the last 365 days.
	Missed int
}

const leastEvery = time.Second

// Every calls run at intervals of every, one second or more, for the first time one interval from
// now. The duration of a run does not shift the following ones. name appears in the log, the
// metrics and the database, and must stay the same.
//
// Of all instances on the service's database one calls run, see sqldb.TryLease. If it ends, another
// takes over within about 5 seconds. The last due time is stored in the database (table
// kaptar_schedules), so a restart does not shift the schedule. Due times that pass without a run
// are made up for by a single run, with their number in Due.Missed. Runs of one name never overlap
// in a process.
//
// An error or a panic is logged and counted, and the next run is at the next due time. A run that
// is interrupted, by a crash or because its ctx ended with the service, is repeated after the next
// start. The service waits for a run under way when it stops. If the clock is set back, a due time
// that has passed is not repeated, unless it is then further away than one interval.
//
// Call Every during Setup of a service with a database. Runs are counted in schedule_runs_total and
// schedule_last_success_timestamp_seconds.
func (a *App) Every(name string, every time.Duration, run func(ctx context.Context, due Due) error) error {
	if every < leastEvery {
		return fmt.Errorf("kaptar: schedule %s: every %v: expected %v or more", name, every, leastEvery)
	}
	return a.schedule(schedule.Job{Name: name, Spec: "every " + every.String(), Next: schedule.Every(every)}, run)
}

// Cron is Every for the times of a cron specification: minute, hour, day, month and weekday, such
// as "30 4 * * mon-fri" or "*/15 * * * *", or @hourly, @daily, @weekly, @monthly or @yearly. The
// times are in UTC unless the specification begins with a zone: "CRON_TZ=Europe/Berlin 30 4 * * *".
// A time that the zone's clock skips in spring is due right after the gap. A time that occurs twice
// in autumn is due the first time only, unless the hour is *.
func (a *App) Cron(name, spec string, run func(ctx context.Context, due Due) error) error {
	c, err := schedule.Parse(spec)
	if err != nil {
		return fmt.Errorf("kaptar: schedule %s: %w", name, err)
	}
	return a.schedule(schedule.Job{Name: name, Spec: spec, Next: c.Next}, run)
}

type schedulesKey struct{}

// schedules are the schedules of one service.
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
	for _, outcome := range []string{"ok", "error"} { // 0 before the first run, so that its rate can be seen
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
