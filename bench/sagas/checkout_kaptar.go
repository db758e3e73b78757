package main

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/saga"
)

func kaptarCheckout(app *kaptar.App, s *services) (*saga.Sagas[order], error) {
	return saga.New(app, saga.Definition[order]{
		Name: "checkout", MaxBackoff: 5 * time.Second,
		Steps: []saga.Step[order]{
			{
				Name: "reserve",
				Do:   func(ctx context.Context, o *order) error { return answered(s.reserve(ctx, *o)) },
				Undo: func(ctx context.Context, o *order) error { return s.release(ctx, *o) },
			},
			{Name: "charge", Pivot: true, Do: func(ctx context.Context, o *order) error { return answered(s.charge(ctx, *o)) }},
			{Name: "ship", Do: func(ctx context.Context, o *order) error { return s.ship(ctx, *o) }},
		},
		End: func(ctx context.Context, tx *sql.Tx, o *order, out saga.Outcome) error {
			return s.ending(func() error { _, err := tx.ExecContext(ctx, insertEnding, o.ID, out.Status); return err })
		},
	})
}

func answered(r reply, err error) error {
	switch {
	case err != nil:
		return err
	case r.refused != "":
		return saga.Refuse(r.refused)
	case r.after > 0:
		return saga.After(r.after, errors.New("not known yet"))
	}
	return nil
}
