// Package schedule runs functions at set times, in one of the processes that share a database. It
// implements kaptar's App.Every and App.Cron, whose comments are the contract for users.
package schedule

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/lead"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

//go:embed migrations
var migrations embed.FS

const (
	leaseName  = "schedules"
	leasePoll  = 5 * time.Second      // between tries to get the lease, and between checks that it is still held
	longest    = time.Minute          // longest sleep, since the clock may be set meanwhile
	saveWithin = 5 * time.Second      // time to store the end of a run, even while the program stops
	counted    = 365 * 24 * time.Hour // how far back missed times are counted, which is done one by one
)

// Migrate creates the table kaptar_schedules in db, or brings it up to date.
func Migrate(ctx context.Context, db *sql.DB) error {
	return sqldb.Migrate(ctx, db, migrations, "kaptar_schedules_schema")
}

// A Job is a function and the times at which it is due.
type Job struct {
	Name string
	Spec string // identifies Next: a job whose Spec has changed starts anew
	Next func(after time.Time) time.Time
	Run  func(ctx context.Context, at time.Time, missed int) error
}

// Every returns the Next of a job that is due at intervals of d.
func Every(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Add(d) }
}

// A Runner runs jobs. Its fields must not change while Run runs.
type Runner struct {
	DB   *sql.DB // migrated
	Jobs []Job
	Now  func() time.Time // the clock
	Log  *slog.Logger
	Ran  func(job string, err error) // called after each run that was not interrupted
}

// Run runs the jobs until ctx ends, and returns when those under way have returned. While the
// database is away it retries.
func (r *Runner) Run(ctx context.Context) error {
	lead.Run(ctx, r.DB, leaseName, leasePoll, &steady.Outage{What: "schedules", Log: r.Log}, r.lead)
	return nil
}

// lead runs the jobs while the lease is held.
func (r *Runner) lead(ctx context.Context, lease *sqldb.Lease, well func()) error {
	last, err := r.load(ctx)
	if err != nil {
		return err
	}
	well()
	leading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var jobs sync.WaitGroup
	for i, job := range r.Jobs {
		jobs.Go(func() {
			if err := r.follow(leading, lease, job, last[i]); err != nil {
				stop(err)
			}
		})
	}
	for steady.Sleep(leading, leasePoll) {
		if err := lease.Check(leading); err != nil && leading.Err() == nil {
			stop(err)
		}
	}
	jobs.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(leading)
}

// load returns the time up to which each job is done. A job that is new or has another Spec starts
// now.
func (r *Runner) load(ctx context.Context) (last []time.Time, err error) {
	last = make([]time.Time, len(r.Jobs))
	err = sqldb.InTx(ctx, r.DB, func(ctx context.Context, tx *sql.Tx) error {
		for i, job := range r.Jobs {
			var due int64
			err := tx.QueryRowContext(ctx, `INSERT INTO kaptar_schedules (name, spec, due_at) VALUES ($1, $2, $3)
				ON CONFLICT (name) DO UPDATE SET spec = excluded.spec,
					due_at = CASE WHEN kaptar_schedules.spec = excluded.spec THEN kaptar_schedules.due_at ELSE excluded.due_at END
				RETURNING due_at`, job.Name, job.Spec, r.Now().UnixMilli()).Scan(&due)
			if err != nil {
				return fmt.Errorf("schedule %s: %w", job.Name, err)
			}
			last[i] = time.UnixMilli(due)
		}
		return nil
	})
	return last, err
}

// follow runs one job whenever it is due, until ctx ends. Its errors are those of the database.
func (r *Runner) follow(ctx context.Context, lease *sqldb.Lease, job Job, last time.Time) error {
	for ctx.Err() == nil {
		now := time.UnixMilli(r.Now().UnixMilli())
		if last.Sub(now) > job.Next(last).Sub(last) {
			last = now // the clock was set back: do not wait until it has caught up
		}
		if old := now.Sub(last) - counted; old > 0 { // by whole intervals: the times stay those of the schedule
			last = last.Add(old.Truncate(job.Next(last).Sub(last)))
		}
		at, n := last, 0
		next := job.Next(last)
		for ; !next.After(now); next = job.Next(next) {
			at, n = next, n+1
		}
		if n == 0 {
			if !steady.Sleep(ctx, min(next.Sub(now), longest)) {
				return nil
			}
			continue
		}
		if err := lease.Check(ctx); err != nil {
			return err
		}
		failed := r.run(ctx, job, at, n-1)
		if failed != nil && ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted, and is due again at the next start
		}
		if err := r.save(ctx, job, at, failed); err != nil {
			return err
		}
		last = at
	}
	return nil
}

// run runs the job once and logs its error. A panic becomes an error.
func (r *Runner) run(ctx context.Context, job Job, at time.Time, missed int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			r.Log.ErrorContext(ctx, "scheduled run panicked", "schedule", job.Name, "due", at, "panic", p, "stack", string(debug.Stack()))
		} else if err != nil && ctx.Err() == nil {
			r.Log.ErrorContext(ctx, "scheduled run failed", "schedule", job.Name, "due", at, "error", err)
		}
		if err == nil || ctx.Err() == nil {
			r.Ran(job.Name, err)
		}
	}()
	return job.Run(ctx, at, missed)
}

func (r *Runner) save(ctx context.Context, job Job, at time.Time, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveWithin)
	defer cancel()
	var text string
	if failed != nil {
		text = sqldb.Text(failed.Error())
	}
	err := sqldb.InTx(ctx, r.DB, func(ctx context.Context, tx *sql.Tx) error {
		n, err := sqldb.Affected(tx.ExecContext(ctx, `UPDATE kaptar_schedules SET due_at = $1, ran_at = $2, error = $3 WHERE name = $4 AND spec = $5`,
			at.UnixMilli(), r.Now().UnixMilli(), text, job.Name, job.Spec))
		if err == nil && n != 1 {
			err = errors.New("another version of the program has other times")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("schedule %s: %w", job.Name, err)
	}
	return nil
}
