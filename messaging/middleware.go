package messaging

import (
	"context"
	"slices"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A Handler handles one try of one delivery. It must neither change the delivery nor acknowledge
// it.
type Handler func(ctx context.Context, d *driver.Delivery) error

// Use puts mw around the handlers of all of app's subscriptions, during Setup, as App.Use does for
// HTTP; the first is the outermost. It sees each try, outside of the handler's transaction: an
// error that it returns instead of calling next counts as the handler's, and its context is the
// handler's.
func Use(app *kaptar.App, mw ...func(next Handler) Handler) error {
	b, err := busOf(app)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.middleware = append(b.middleware, mw...)
	return nil
}

// wrap returns h in the middleware, which does not change after Setup.
func (b *bus) wrap(h Handler) Handler {
	for _, mw := range slices.Backward(b.middleware) {
		h = mw(h)
	}
	return h
}
