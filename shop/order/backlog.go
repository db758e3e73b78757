package order

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	countEvery = 500 * time.Millisecond
	alwaysRoom = 500     // orders may wait whatever the rate is: nobody knows it yet
	countMost  = 100_000 // waiting orders are counted up to this
	retryAfter = 5 * time.Second
)

// A backlog keeps the orders that wait for their checkout to what the services get done within a
// time. Orders are counted now and then, in the table, so that several instances know of each other's;
// what is placed in between is subtracted from the room that there was.
type backlog struct {
	store *store
	most  time.Duration // that the last in the row would have to wait; not positive: for ever

	room atomic.Int64 // for more orders, until the next count
	rate float64      // checkouts that end in a second
	last count
}

// A count is what is known of the orders at one time.
type count struct {
	at      time.Time
	waiting int64 // their checkouts are not done
	newest  int64 // id
}

// full reports whether there is no room for another order, and takes some if there is.
func (b *backlog) full() bool { return b.most > 0 && b.room.Add(-1) < 0 }

// run counts until ctx ends.
func (b *backlog) run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for b.most > 0 {
		if now, err := b.store.count(ctx); err == nil { // a database that is away takes no orders either
			b.update(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// update learns from a count how fast orders are done and how much room that leaves.
func (b *backlog) update(now count) {
	placed, more := now.newest-b.last.newest, now.waiting-b.last.waiting
	if done := float64(placed - more); !b.last.at.IsZero() && done > 0 && b.last.waiting > 0 {
		rate := done / now.at.Sub(b.last.at).Seconds()
		if b.rate == 0 {
			b.rate = rate
		}
		b.rate += (rate - b.rate) / 8
	}
	b.last = now
	b.room.Store(max(alwaysRoom, int64(b.rate*b.most.Seconds())) - now.waiting)
}

// count looks at how many orders wait for the end of their checkouts.
func (s *store) count(ctx context.Context) (c count, err error) {
	c.at = time.Now()
	err = s.db.QueryRowContext(ctx, `
		SELECT (SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = 'pending' LIMIT $1) AS waiting),
			COALESCE((SELECT max(id) FROM orders), 0)`, countMost).Scan(&c.waiting, &c.newest)
	if err != nil {
		return c, fmt.Errorf("order: count: %w", err)
	}
	return c, nil
}
