package main

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// temporalCheckout is the workflow, and temporalActivities what it calls, for worker.RegisterWorkflow
// and worker.RegisterActivity.
func temporalCheckout(ctx workflow.Context, o order) (string, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, MaximumInterval: 5 * time.Second, NonRetryableErrorTypes: []string{"refused"},
		},
	})
	var a *temporalActivities
	end := func(status string) (string, error) {
		return status, workflow.ExecuteActivity(ctx, a.End, o, status).Get(ctx, nil)
	}
	err := workflow.ExecuteActivity(ctx, a.Reserve, o).Get(ctx, nil)
	if refused(err) {
		return end("compensated")
	}
	if err != nil {
		return "", err
	}
	err = workflow.ExecuteActivity(ctx, a.Charge, o).Get(ctx, nil)
	if refused(err) {
		if err := workflow.ExecuteActivity(ctx, a.Release, o).Get(ctx, nil); err != nil {
			return "", err
		}
		return end("compensated")
	}
	if err != nil {
		return "", err
	}
	if err := workflow.ExecuteActivity(ctx, a.Ship, o).Get(ctx, nil); err != nil {
		return "", err
	}
	return end("completed")
}

// temporalActivities may run again, End too: its transaction is in the service's database and what
// is written down of it at the server.
type temporalActivities struct {
	s  *services
	db *sql.DB
}

func (a *temporalActivities) Reserve(ctx context.Context, o order) error {
	return activityResult(a.s.reserve(ctx, o))
}

func (a *temporalActivities) Charge(ctx context.Context, o order) error {
	return activityResult(a.s.charge(ctx, o))
}

func (a *temporalActivities) Ship(ctx context.Context, o order) error { return a.s.ship(ctx, o) }

func (a *temporalActivities) Release(ctx context.Context, o order) error { return a.s.release(ctx, o) }

func (a *temporalActivities) End(ctx context.Context, o order, status string) error {
	_, err := a.db.ExecContext(ctx, `INSERT INTO endings (id, status) VALUES ($1, $2) ON CONFLICT DO NOTHING`, o.ID, status)
	return err
}

func activityResult(r reply, err error) error {
	switch {
	case err != nil:
		return err
	case r.refused != "":
		return temporal.NewNonRetryableApplicationError(r.refused, "refused", nil)
	case r.after > 0:
		return temporal.NewApplicationErrorWithOptions("not known yet", "wait", temporal.ApplicationErrorOptions{NextRetryDelay: r.after})
	}
	return nil
}

func refused(err error) bool {
	app, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && app.Type() == "refused"
}
