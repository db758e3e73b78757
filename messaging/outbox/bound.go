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

// A bound is an id of PostgreSQL's outbox at or below which there is no row and never will be.
// Reads start above it, so they do not go through deleted rows that vacuum has not removed yet.
// After a long outage, or while a long transaction holds vacuum back, there are hundreds of
// thousands of them.
//
// The last id that was sent is no bound: a transaction takes its id before it commits, so one that
// is still open can have lower ids than rows sent long ago. Reading from the start now and then
// would not be enough: in between, a later event of a key could be sent before the one that
// committed late. So a bound is proven, in three steps:
//
//  1. All ids up to some id that was sent have been taken. A transaction that has taken one and is
//     not over holds ROW EXCLUSIVE on the table; these transactions are noted.
//  2. All of them are over. Their rows are visible to every read that starts from now on, and no
//     other row up to that id can appear, since identity columns only increase.
//  3. A read that started after that, from the previous bound, has found all rows up to that id,
//     and they have been sent and deleted.
//
// A prepared transaction counts as not over. Once a minute a read starts at the beginning, in case
// a dump was restored under a running relay.
//
// With several routes each has a bound of its own, below which there is no row of that route, so
// that its reads need not go through the backlog of another one. Then SQLite has bounds too. They
// need no proof, as only one transaction writes at a time.
type bound struct {
	every  time.Duration // between two looks at the locks
	serial bool          // ids are in the order of the commits

	id      int64     // the bound
	next    int64     // the next bound; 0 while nothing was sent since
	noted   bool      // step 1 is done
	writers []string  // transactions of step 1 that may not be over
	clear   bool      // step 2 is done
	looked  time.Time // last look at the locks
	full    time.Time // when a read last started at the beginning
}

const selectWriters = `SELECT virtualtransaction, pid IS NULL FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = 'kaptar_outbox'::regclass`

// look takes step 1 or 2, if it is time to. It is called before a read.
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

// least returns the id above which the read after look starts.
func (b *bound) least() int64 {
	if time.Since(b.full) < boundFull {
		return b.id
	}
	b.full = time.Now()
	return 0
}

// delivered takes step 3, if it can, and then starts with the next bound. ids are those that the
// last read has found; all of them are deleted. last is an id that was taken before that read.
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
