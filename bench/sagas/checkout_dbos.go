package main

import (
	"context"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

// dbosCheckout returns the workflow. A refusal is a value and not an error, so that it is written down
// and not tried again; what fails is tried "for ever", as a saga's step is.
func dbosCheckout(s *services, db *dbos.DataSource) func(dbos.Context, order) (string, error) {
	step := func(ctx dbos.Context, name string, call func(context.Context) (reply, error)) (string, error) {
		for {
			r, err := dbos.RunAsStep(ctx, func(ctx context.Context) (stepResult, error) {
				r, err := call(ctx)
				return stepResult{r.refused, r.after}, err
			}, dbos.WithStepName(name), dbos.WithStepMaxRetries(1_000_000), dbos.WithStepBaseInterval(200*time.Millisecond),
				dbos.WithStepMaxInterval(5*time.Second))
			if err != nil || r.After == 0 {
				return r.Refused, err
			}
			if _, err := dbos.Sleep(ctx, r.After); err != nil {
				return "", err
			}
		}
	}
	end := func(ctx dbos.Context, o order, status string) (string, error) {
		return dbos.RunAsTransaction(ctx, db, func(ctx context.Context, tx dbos.Tx) (string, error) {
			return status, s.ending(func() error { _, err := tx.Exec(ctx, insertEnding, o.ID, status); return err })
		})
	}
	return func(ctx dbos.Context, o order) (string, error) {
		refused, err := step(ctx, "reserve", func(ctx context.Context) (reply, error) { return s.reserve(ctx, o) })
		if err != nil {
			return "", err
		}
		if refused != "" {
			return end(ctx, o, "compensated")
		}
		refused, err = step(ctx, "charge", func(ctx context.Context) (reply, error) { return s.charge(ctx, o) })
		if err != nil {
			return "", err
		}
		if refused != "" {
			if _, err := step(ctx, "release", func(ctx context.Context) (reply, error) { return reply{}, s.release(ctx, o) }); err != nil {
				return "", err
			}
			return end(ctx, o, "compensated")
		}
		if _, err := step(ctx, "ship", func(ctx context.Context) (reply, error) { return reply{}, s.ship(ctx, o) }); err != nil {
			return "", err
		}
		return end(ctx, o, "completed")
	}
}

type stepResult struct {
	Refused string
	After   time.Duration
}
