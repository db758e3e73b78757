package messaging

import (
	"context"
	"slices"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A Handler handles one try of one delivery. It must neither change nor acknowledge it.
type Handler func(ctx context.Context, d *driver.Delivery) error

// Use wraps the handlers of all of app's subscriptions in mw; the first is the outermost. Call it
// during Setup. The middleware sees each try, outside of the handler's transaction. If it returns
// an error without calling next, that counts as the handler's error. The handler gets the context
// that it passes on.
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

// wrap returns h wrapped in the middleware, which does not change after Setup.
func (b *bus) wrap(h Handler) Handler {
	for _, mw := range slices.Backward(b.middleware) {
		h = mw(h)
	}
	return h
}
