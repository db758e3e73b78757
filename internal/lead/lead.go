// Package lead has the loop of work that one process of all on a database does at a time.
package lead

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

// Run takes the lease called name whenever it is free, calls work with it, and releases it when
// work returns, until ctx ends. While others hold it, and after work returned nil, Run waits for
// poll, ± 20 %. After an error, of the database or of work, it tells outage and waits for 100 ms,
// doubled up to 5 s.
//
// well tells that the database has answered, which ends the outage; work may call it concurrently.
// An answer that others hold the lease ends it too.
func Run(ctx context.Context, db *sql.DB, name string, poll time.Duration, outage *steady.Outage,
	work func(ctx context.Context, lease *sqldb.Lease, well func()) error,
) {
	backoff := &steady.Backoff{First: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		var answered atomic.Bool
		well := func() {
			answered.Store(true)
			outage.Back(ctx)
		}
		lease, err := sqldb.TryLease(ctx, db, name)
		switch {
		case lease != nil:
			err = work(ctx, lease, well)
			lease.Release()
		case err == nil:
			well()
		}
		if answered.Load() {
			backoff.Reset()
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			outage.Lost(ctx, err)
			steady.Sleep(ctx, backoff.Next())
		default:
			steady.Sleep(ctx, steady.Jitter(poll))
		}
	}
}
