package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/operate"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// A check says whether the data of a delivery can be read.
type check func(d *driver.Delivery) error

func checkOf[T any](decode func(d *driver.Delivery) (Event[T], error)) check {
	return func(d *driver.Delivery) error {
		_, err := decode(d)
		return err
	}
}

// An operator changes by hand what one service has set aside, for the commands and the API.
type operator struct {
	bus *bus
	db  *sql.DB
}

// operatorOf returns app's operator, or an error with operate.ErrNothing if it keeps no events in a database.
func operatorOf(app *kaptar.App) (*operator, error) {
	b, err := busOf(app)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stored == nil {
		return nil, fmt.Errorf("%w: %s keeps no events in a database: it neither subscribes nor publishes with an outbox", operate.ErrNothing, app.Name())
	}
	if app.Offline() && strings.Contains(app.Settings().DatabaseURL.Reveal(), ":memory:") {
		return nil, fmt.Errorf("%s has its database in memory, where nobody else sees it: start this command where the program runs, "+
			"or say with --data-dir or --set services.%[1]s.database_url where the data is", app.Name())
	}
	return &operator{b, b.stored.db}, nil
}

// change does something to dead letters, writes it down, and returns how many they were. It is done
// for all of them or for none. With a state, those that have left it since they were selected are
// left alone: others work at them too. do is told how many were done before.
func (o *operator) change(
	ctx context.Context, ids []int64, state, action string, who by, do func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, before int) error,
) (n int, err error) {
	defer sqldb.NewSignal(o.db, retryLease).Notify()
	err = sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error {
		n = 0
		for _, id := range ids {
			d, err := outbox.GetDeadLetter(ctx, tx, id)
			switch {
			case err == nil && state != "" && d.State != state:
				continue
			case err == nil:
				err = do(ctx, tx, &d, n)
			}
			switch {
			case err == nil:
				n++
				kept := &record{Who: who.Who, Why: who.Why, Action: action}
				err = kept.of(&d).add(ctx, tx)
			case state != "" && errors.Is(err, outbox.ErrNoDeadLetter):
				err = nil
			}
			if err != nil {
				return fmt.Errorf("messaging: %s: %s: %w", o.bus.app.Name(), action, err)
			}
		}
		return nil
	})
	return n, err
}

// replay has dead letters tried again, at most rate of them in a second from the time begin on. One
// that the broker refused goes back into the outbox.
func (o *operator) replay(ctx context.Context, ids []int64, state string, rate int, begin time.Time, who by) (int, error) {
	return o.change(ctx, ids, state, "replay", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, before int) error {
		if err := o.current(d); err != nil {
			return err
		}
		if err := outbox.ReplayDeadLetter(ctx, tx, d.ID); err != nil {
			return err
		}
		return d.Delay(ctx, tx, begin.Add(time.Duration(before)*time.Second/time.Duration(rate)))
	})
}

// current refuses to replay what no group of the service would try again.
func (o *operator) current(d *outbox.DeadLetter) error {
	if d.Kind != outbox.Publish && o.bus.consumer(d.Message.Topic, d.Group) == nil {
		return cli.Usagef("dead letter %d: %s has no subscription to %s in group %s any more: drop it, or subscribe again",
			d.ID, o.bus.app.Name(), d.Message.Topic, d.Group)
	}
	return nil
}

func (o *operator) drop(ctx context.Context, ids []int64, state string, who by) (int, error) {
	return o.change(ctx, ids, state, "drop", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, _ int) error {
		return outbox.DropDeadLetter(ctx, tx, d.ID)
	})
}

// edit gives a dead letter new data, unless that is nil, and headers; a header with an empty value
// goes. What its subscription, or publisher, could not read is refused.
func (o *operator) edit(ctx context.Context, id int64, data []byte, headers map[string]string, who by) error {
	if data == nil && len(headers) == 0 {
		return cli.Usagef("there is nothing to change: expected new data or headers")
	}
	_, err := o.change(ctx, []int64{id}, "", "edit", who, func(ctx context.Context, tx *sql.Tx, d *outbox.DeadLetter, _ int) error {
		edited := d.Message
		if data != nil {
			edited.Data = data
		}
		all := d.Message.Headers.Map()
		for name, value := range headers {
			if all[name] = value; value == "" {
				delete(all, name)
			}
		}
		edited.Headers = driver.HeadersOf(all)
		if err := d.Edit(ctx, tx, edited); err != nil {
			return err
		}
		if check := o.checkOf(d); check != nil {
			if err := check(&driver.Delivery{Message: edited, Attempt: 1}); err != nil {
				return cli.Usagef("%w", err)
			}
		}
		return nil
	})
	if errors.Is(err, driver.ErrInvalid) || errors.Is(err, driver.ErrTooLarge) {
		return cli.Usagef("%w", err)
	}
	return err
}

// checkOf is how the data of d is read; nil when that is not known.
func (o *operator) checkOf(d *outbox.DeadLetter) check {
	if d.Kind == outbox.Publish {
		o.bus.mu.Lock()
		defer o.bus.mu.Unlock()
		return o.bus.publishes[d.Message.Topic]
	}
	if c := o.bus.consumer(d.Message.Topic, d.Group); c != nil {
		return c.check
	}
	return nil
}

// numbers returns those of all dead letters that f selects, up to limit.
func (o *operator) numbers(ctx context.Context, f outbox.Filter, limit int) (ids []int64, err error) {
	f.WithoutData = true
	for f.Limit = mostListed; len(ids) < limit; {
		page, err := outbox.DeadLetters(ctx, o.db, &f)
		if err != nil {
			return nil, fmt.Errorf("messaging: %s: %w", o.bus.app.Name(), err)
		}
		for i := range page {
			ids = append(ids, page[i].ID)
		}
		if len(page) < mostListed {
			break
		}
		f.After = ids[len(ids)-1]
	}
	return ids[:min(len(ids), limit)], nil
}
