package messaging

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// failed decides what becomes of w after its last try failed with err, and sets it aside if it
// must.
func (c *consumer) failed(stop, ctx context.Context, w *work, err error) (outcome, error) {
	log := c.bus.app.Logger().With("topic", c.topic, "group", c.opts.Group, "id", w.ID, "attempts", w.tries)
	switch {
	case errors.Is(err, errStopped):
		return stopped, err
	case c.autoAck:
		log.ErrorContext(ctx, "event dropped", "error", err)
		return dropped, err
	case stop.Err() != nil && !isPermanent(err):
		return stopped, err
	}
	result, failure := c.setAside(ctx, w, err)
	switch {
	case failure != nil:
		log.ErrorContext(ctx, "event neither handled nor set aside, it is held", "error", errors.Join(err, failure))
		return held, errors.Join(err, failure)
	case result == retrying:
		log.WarnContext(ctx, "event set aside, it will be tried again", "error", err)
	case result == dead:
		log.ErrorContext(ctx, "event is a dead letter", "error", err)
	case result == waits || result == duplicate:
		err = nil
	}
	return result, err
}

// setAside moves w, which failed because of err, into the database.
func (c *consumer) setAside(ctx context.Context, w *work, err error) (result outcome, failure error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	letter := outbox.DeadLetter{
		State: outbox.Retrying, Message: w.Message, Reason: err.Error(), Attempts: max(w.tries, 1), FirstAt: w.failed, DueAt: time.Now().Add(firstDelay),
	}
	if isPermanent(err) {
		letter.State, letter.DueAt = outbox.Dead, time.Time{}
	}
	failure = sqldb.InTx(ctx, c.db, func(ctx context.Context, tx *sql.Tx) error {
		turn, err := c.inbox.SetAside(ctx, tx, letter, w.waited())
		err = c.current(ctx, tx, turn, err)
		if result = outcomeOf(turn); turn == outbox.Aside && letter.State == outbox.Dead {
			result = dead
		}
		return err
	})
	if failure == nil && result == retrying {
		c.retrier.signal.Notify()
	}
	return result, failure
}

// outcomeOf returns the outcome of an event that got this turn.
func outcomeOf(t outbox.Turn) outcome {
	switch t {
	case outbox.Handle:
		return handled
	case outbox.Aside:
		return retrying
	case outbox.Joined:
		return parked
	case outbox.Early:
		return waits
	case outbox.Stray:
		return dead
	}
	return duplicate
}

// waited is how long w has waited for earlier events of its key.
func (w *work) waited() time.Duration {
	switch {
	case w.forced:
		return outbox.GapWait
	case w.early.IsZero():
		return 0
	}
	return time.Since(w.early)
}

// noteGap updates the metric of gaps: w counts once it has waited for FirstWait.
func (c *consumer) noteGap(ctx context.Context, w *work, waits bool) {
	if !waits && !w.counted { // by far the most common case
		return
	}
	gaps := c.bus.metrics.gaps.WithLabelValues(c.topic, c.opts.Group)
	switch {
	case waits && !w.counted && w.waited() >= outbox.FirstWait:
		w.counted = true
		gaps.Inc()
		c.bus.app.Logger().WarnContext(ctx, "events of a key are missing, later ones wait for them", "topic", c.topic, "group", c.opts.Group,
			"key", w.Key, "id", w.ID, "number", w.seq())
	case !waits && w.counted:
		w.counted = false
		gaps.Dec()
	}
}
