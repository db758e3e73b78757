package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	batchSize   = 500
	idlePoll    = time.Second
	busyPoll    = 100 * time.Millisecond
	leasePoll   = time.Second
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 5 * time.Second
	deleteGrace = 2 * time.Second
	leaseName   = "outbox relay"
	signalName  = "outbox"
)

// RelayOptions configure a Relay. The zero value and nil are ready to use.
type RelayOptions struct {
	Log  *slog.Logger  // told when sending begins to fail and when it recovers; nil logs nothing
	Keep time.Duration // how long sent events are kept for Resend; 0, the default, keeps none
}

// Relay sends the events of one database's outbox. Its methods may be called concurrently.
type Relay struct {
	db     *sql.DB
	send   func(context.Context, []driver.Message) error
	keep   time.Duration
	signal *sqldb.Signal
	poll   time.Duration // idlePoll, but in tests
	every  time.Duration // boundEvery, but in tests

	outage steady.Outage
}

// NewRelay returns a relay from db, which sqldb.Open must have opened and [Migrate] migrated, to
// send. It starts nothing; see [Relay.Run].
//
// send gets at most 500 messages in the order of the outbox and returns nil once the broker has
// them all, durably. Of a *driver.PartialError in the chain of its error the relay takes that the
// first messages are sent; else that none is. It is not called concurrently, and must return when
// its ctx ends.
func NewRelay(db *sql.DB, send func(context.Context, []driver.Message) error, opts *RelayOptions) *Relay {
	r := &Relay{db: db, send: send, signal: sqldb.NewSignal(db, signalName), poll: idlePoll, every: boundEvery}
	r.outage.What = "outbox relay"
	if opts != nil {
		r.outage.Log, r.keep = opts.Log, opts.Keep
	}
	return r
}

// Wake makes the relay that leads look into the outbox now, wherever it runs: see [sqldb.Signal]. Call
// it after a commit, through sqldb.AfterCommit. It never blocks. While sending fails it does not
// shorten the pause.
func (r *Relay) Wake() { r.signal.Notify() }

// Backlog returns how many committed events wait, and the age of the oldest, 0 for none.
func (r *Relay) Backlog(ctx context.Context) (rows int, oldest time.Duration, err error) {
	var created sql.NullInt64
	err = r.db.QueryRowContext(ctx, `SELECT count(*), min(created_at) FROM kaptar_outbox`).Scan(&rows, &created)
	if err != nil {
		return 0, 0, fmt.Errorf("outbox: backlog: %w", err)
	}
	if created.Valid {
		oldest = max(0, time.Since(time.UnixMilli(created.Int64)))
	}
	return rows, oldest, nil
}

// Run sends until ctx ends, and then returns nil without emptying the outbox: what is in it is safe
// and goes out at the next start. An error means that the database was not opened by sqldb.Open; a
// database or broker that fails is tried again, after 100 ms at first and up to 5 s, and told to
// the log once.
//
// One relay per database is at work: see [sqldb.TryLease]; the others try each second to succeed it.
// On PostgreSQL it reads over the session that holds the lease, and asks whether it still does before
// it sends a batch. A relay that is stopped for long in the middle of a batch can still send events
// that its successor sent too.
//
// It looks into the outbox at [Relay.Wake], every second while nothing comes (± 20 %), every 100 ms
// while something does, and at once after a full batch. It remembers no position: it reads the
// lowest ids, in order, and deletes those that were sent by id. Events of transactions that commit
// late, with ids lower than those already sent, are read then. What it costs does not grow with the
// backlog, nor while PostgreSQL cannot remove the deleted rows: see bound.
func (r *Relay) Run(ctx context.Context) error {
	if sqldb.DialectOf(r.db) == "" {
		return errors.New("outbox: relay: the database was not opened by sqldb.Open")
	}
	backoff := &steady.Backoff{First: backoffMin, Max: backoffMax}
	for ctx.Err() == nil {
		lease, err := sqldb.TryLease(ctx, r.db, leaseName)
		switch {
		case err != nil:
			r.failed(ctx, backoff, err)
		case lease == nil:
			steady.Sleep(ctx, jitter(leasePoll))
		default:
			r.lead(ctx, lease, backoff)
			lease.Release()
		}
	}
	return nil
}

// lead sends while the lease is held. The reads go over its session: when that is lost nothing is
// sent.
func (r *Relay) lead(ctx context.Context, lease *sqldb.Lease, backoff *steady.Backoff) {
	l := leader{Relay: r, lease: lease, bound: bound{every: r.every}}
	if err := l.prepare(ctx); err != nil {
		r.failed(ctx, backoff, err)
		return
	}
	for ctx.Err() == nil {
		batch, err := l.fetch(ctx)
		if err != nil {
			r.failed(ctx, backoff, err)
			return
		}
		if err := r.deliver(ctx, batch); err != nil {
			r.failed(ctx, backoff, err)
			continue
		}
		l.bound.delivered(batch.ids)
		backoff.Reset()
		r.outage.Back(ctx)
		if err := l.purge(ctx); err != nil {
			r.failed(ctx, backoff, err)
		}
		switch len(batch.ids) {
		case 0:
			r.signal.Wait(ctx, jitter(r.poll))
		case batchSize: // more waits
		default:
			r.signal.Wait(ctx, jitter(min(busyPoll, r.poll)))
		}
	}
}

// failed tells the log once and waits.
func (r *Relay) failed(ctx context.Context, backoff *steady.Backoff, err error) {
	if ctx.Err() == nil {
		r.outage.Lost(ctx, err)
		steady.Sleep(ctx, backoff.Next())
	}
}

// batch is a run of rows; ids and msgs go together.
type batch struct {
	ids  []int64
	msgs []driver.Message
}

const selectBatch = `SELECT id, msgid, topic, key, headers, payload, raw FROM kaptar_outbox WHERE id > $1 ORDER BY id LIMIT $2`

// A leader is a Relay while it has the lease.
type leader struct {
	*Relay

	lease  *sqldb.Lease
	bound  bound
	purged time.Time // when a look found no more to purge
}

// keepIndex makes PostgreSQL read the outbox by its index. An outbox is empty most of the time, and
// the plan that is kept from then reads and sorts the whole table for each batch of a backlog, until
// statistics are made again.
const keepIndex = "SET LOCAL enable_seqscan = off"

func (l *leader) prepare(ctx context.Context) error {
	if sqldb.DialectOf(l.db) != sqldb.Postgres {
		return nil
	}
	err := l.lease.Use(ctx, func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, strings.Replace(keepIndex, "LOCAL ", "", 1)) // the session ends with the lease
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: prepare to read: %w", err)
	}
	return nil
}

// fetch reads the next batch, and makes sure that it is ours to send.
func (l *leader) fetch(ctx context.Context) (b batch, err error) {
	postgres := sqldb.DialectOf(l.db) == sqldb.Postgres
	err = l.lease.Use(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		if postgres {
			if err := l.bound.look(ctx, conn); err != nil {
				return err
			}
		}
		b.ids, err = sqldb.Select(ctx, conn, b.scan, selectBatch, l.bound.least(), batchSize)
		return err
	})
	if err == nil && len(b.ids) > 0 {
		err = l.lease.Check(ctx)
	}
	if err != nil {
		return b, fmt.Errorf("outbox: read: %w", err)
	}
	return b, nil
}

func (b *batch) scan(row sqldb.Row) (id int64, err error) {
	var m driver.Message
	var headers sql.RawBytes
	if err := row.Scan(&id, &m.ID, &m.Topic, &m.Key, &headers, &m.Data, &m.Raw); err != nil {
		return 0, err
	}
	if err := m.Headers.UnmarshalJSON(headers); err != nil {
		return 0, fmt.Errorf("row %d: %w", id, err)
	}
	b.msgs = append(b.msgs, m)
	return id, nil
}

// deliver sends b, if there is anything in it, and deletes what was sent.
func (r *Relay) deliver(ctx context.Context, b batch) error {
	sent := len(b.ids)
	if sent == 0 {
		return nil
	}
	sendErr := r.send(ctx, b.msgs)
	if sendErr != nil {
		sent = 0
		if partial, ok := errors.AsType[*driver.PartialError](sendErr); ok {
			sent = min(max(partial.Sent, 0), len(b.ids))
		}
	}
	if sent > 0 {
		// Sent is sent, also when ctx ended meanwhile: not deleting it now would only send it
		// twice.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteGrace)
		defer cancel()
		if err := r.remove(ctx, b.ids[:sent]); err != nil {
			return errors.Join(sendErr, err)
		}
	}
	return sendErr
}

// jitter spreads d by ± 20 %.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
