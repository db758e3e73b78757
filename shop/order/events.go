package order

import (
	"context"
	"database/sql"
	"strconv"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
)

// publishers publish how orders begin and end: one topic for each status.
type publishers map[status]*messaging.Publisher[events.OrderV1]

func newPublishers(app *kaptar.App) (publishers, error) {
	p := make(publishers)
	for st, topic := range map[status]messaging.Topic[events.OrderV1]{
		pending:   events.OrderPlaced,
		confirmed: events.OrderConfirmed,
		cancelled: events.OrderCancelled,
	} {
		var err error
		if p[st], err = messaging.NewPublisher(app, topic); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// publish publishes, as part of tx, that o has its status.
func (p publishers) publish(ctx context.Context, tx *sql.Tx, o order) error {
	items := make([]events.ItemV1, len(o.Items))
	for i, it := range o.Items {
		items[i] = events.ItemV1(it)
	}
	return p[o.Status].Publish(ctx, tx, strconv.FormatInt(o.ID, 10), events.OrderV1{
		OrderID: o.ID, UserID: o.UserID, Items: items, TotalCents: o.TotalCents, Reason: o.Reason,
	})
}
