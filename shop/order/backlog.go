package order

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	countEvery = 500 * time.Millisecond
	alwaysRoom = 500     // orders that may wait whatever the rate is, which is unknown at first
	countMost  = 100_000 // limit of the count
	retryAfter = 5 * time.Second
)

// A backlog limits the orders that wait for their checkout to what can be done within a given time.
// The orders are counted in the table at intervals, so that instances see each other's. What is
// placed between two counts is subtracted from the room that the last one has left.
type backlog struct {
	store *store
	most  time.Duration // longest wait of a new order; 0 or less: no limit

	room atomic.Int64 // for more orders, until the next count
	rate float64      // checkouts per second
	last count
}

// A count is the state of the table at one time.
type count struct {
	at      time.Time
	waiting int64 // orders whose checkout has not ended
	newest  int64 // id
}

// full takes room for one order, and reports whether there was none.
func (b *backlog) full() bool { return b.most > 0 && b.room.Add(-1) < 0 }

// run counts until ctx ends.
func (b *backlog) run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for b.most > 0 {
		if now, err := b.store.count(ctx); err == nil { // while the database is away no order is placed either
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

// update derives the rate of checkouts from two counts, and the room from that.
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
