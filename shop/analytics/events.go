package analytics

import (
	"context"
	"database/sql"
	"errors"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
)

// subscribe follows every event of the shop. Each counts once, however often it comes.
func subscribe(app *kaptar.App, sales store) error {
	err := errors.Join(
		count(app, sales, events.UserRegistered, users),
		count(app, sales, events.OrderPlaced, placed),
		count(app, sales, events.OrderCancelled, cancelled),
		count(app, sales, events.StockChanged, stockChanges),
		add(app, sales, events.PaymentCaptured, func(p events.PaymentCapturedV1) totals {
			return totals{capturedCents: p.AmountCents}
		}),
	)
	if err != nil {
		return err
	}
	return messaging.Subscribe(app, events.OrderConfirmed, func(ctx context.Context, tx *sql.Tx, e messaging.Event[events.OrderV1]) error {
		if err := sales.addTotals(ctx, tx, totals{orders: 1, totalCents: e.Data.TotalCents}); err != nil {
			return err
		}
		return sales.addItems(ctx, tx, e.Data.Items)
	}, nil)
}

// count adds 1 to the total called name for each event of topic.
func count[T any](app *kaptar.App, sales store, topic messaging.Topic[T], name string) error {
	return add(app, sales, topic, func(T) totals { return totals{name: 1} })
}

// add adds what measure makes of each event of topic.
func add[T any](app *kaptar.App, sales store, topic messaging.Topic[T], measure func(T) totals) error {
	return messaging.Subscribe(app, topic, func(ctx context.Context, tx *sql.Tx, e messaging.Event[T]) error {
		return sales.addTotals(ctx, tx, measure(e.Data))
	}, nil)
}
