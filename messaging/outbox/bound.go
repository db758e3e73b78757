package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

const (
	boundEvery = time.Second
	boundFull  = time.Minute
)

// A bound is an id of PostgreSQL's outbox up to which there is no row and never will be. Reads begin
// above it, and so do not go through the rows that were deleted and that vacuum has not removed yet,
// which are hundreds of thousands after a long outage, or while a transaction that is open for long
// keeps vacuum from it.
//
// It is not the position of what was sent. A transaction takes an id and commits later: one that is
// still open has lower ids than others that were sent long ago. Nor is it a guess that is corrected
// by a look from the start now and then: between two looks, a later event of the same key would be
// sent before the one that committed late. It is proven, in three steps:
//
//  1. All ids up to some id that was sent have been taken. Who has taken one and is not over holds
//     ROW EXCLUSIVE on the table, since before; these transactions are noted.
//  2. All of them are over. Their rows are visible to whoever reads from now on, and no other row up
//     to that id can come: identity columns only go up.
//  3. A read that began after that, from the bound of before, has found all rows up to that id, and
//     they have been sent and deleted.
//
// A prepared transaction counts as one that is not over. Once a minute a read begins at the start,
// for the sake of whoever restores a dump under a running relay.
//
// Of several routes each has a bound of its own, below which there is no row of that route: it need not
// go through the backlog of another one each time. There SQLite has one too, for which nothing needs to
// be proven, as it has one writer at a time.
type bound struct {
	every  time.Duration // between two looks at the locks
	serial bool          // ids are in the order of the commits

	id      int64     // the bound
	next    int64     // what it will be; 0 while nothing was sent since
	noted   bool      // step 1 is done
	writers []string  // those of step 1 that may not be over
	clear   bool      // step 2 is done
	looked  time.Time // at the locks
	full    time.Time // when a read last began at the start
}

const selectWriters = `SELECT virtualtransaction, pid IS NULL FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = 'kaptar_outbox'::regclass`

// look takes step 1 or 2, if it is time, before a read.
func (b *bound) look(ctx context.Context, conn *sql.Conn) error {
	if b.next == 0 || b.clear || time.Since(b.looked) < b.every {
		return nil
	}
	b.looked = time.Now()
	var writers []string
	_, err := sqldb.Select(ctx, conn, func(row sqldb.Row) (none struct{}, err error) {
		var id string
		var prepared bool
		if err := row.Scan(&id, &prepared); err != nil {
			return none, err
		}
		if !b.noted || prepared || slices.Contains(b.writers, id) {
			writers = append(writers, id)
		}
		return none, nil
	}, selectWriters)
	if err != nil {
		return fmt.Errorf("who writes: %w", err)
	}
	b.noted, b.writers, b.clear = true, writers, len(writers) == 0
	return nil
}

// least returns the id above which the read after look begins.
func (b *bound) least() int64 {
	if time.Since(b.full) < boundFull {
		return b.id
	}
	b.full = time.Now()
	return 0
}

// delivered takes step 3, if it can, and begins anew. ids are those that the last read has found; all
// are deleted. last is an id that was taken before that read.
func (b *bound) delivered(ids []int64, last int64) {
	if n := len(ids); n == batchSize || n > 0 && ids[n-1] > last {
		last = ids[n-1]
	}
	if b.serial {
		b.id = max(b.id, last)
		return
	}
	if b.clear && (last >= b.next || len(ids) < batchSize) {
		b.id, b.next, b.noted, b.clear = b.next, 0, false, false
	}
	if b.next == 0 && last > b.id {
		b.next = last
	}
}
