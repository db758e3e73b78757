package notification

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
)

// subscribe follows the shop, and works off the queue of mails.
func subscribe(app *kaptar.App, mails store) error {
	queue, err := messaging.NewPublisher(app, events.EmailSend)
	if err != nil {
		return err
	}
	return errors.Join(
		writeOn(app, events.UserRegistered, queue, welcome),
		writeOn(app, events.OrderConfirmed, queue, confirmed),
		writeOn(app, events.OrderCancelled, queue, cancelled),
		// From now on, so that the queue can be one of RabbitMQ, which keeps no history; nothing is
		// missed, as this service alone fills it.
		messaging.Subscribe(app, events.EmailSend, func(ctx context.Context, tx *sql.Tx, e messaging.Event[events.EmailSendV1]) error {
			return mails.add(ctx, tx, e.Data, time.Now())
		}, &messaging.SubscribeOptions{From: messaging.FromNow}),
	)
}

// writeOn queues one mail for each event of topic: once, however often it comes.
func writeOn[T any](
	app *kaptar.App, topic messaging.Topic[T], queue *messaging.Publisher[events.EmailSendV1], write func(T) events.EmailSendV1,
) error {
	return messaging.Subscribe(app, topic, func(ctx context.Context, tx *sql.Tx, e messaging.Event[T]) error {
		m := write(e.Data)
		return queue.Publish(ctx, tx, strconv.FormatInt(m.UserID, 10), m)
	}, nil)
}
