package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
)

// RelayOptions configure a Relay. The zero value and nil are ready to use.
type RelayOptions struct {
	Log *slog.Logger // told when sending begins to fail and when it recovers; nil logs nothing
}

// Relay sends the events of one database's outbox. Its methods may be called concurrently.
type Relay struct {
	db   *sql.DB
	send func(context.Context, []driver.Message) error
	wake chan struct{}

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
	r := &Relay{db: db, send: send, wake: make(chan struct{}, 1)}
	r.outage.What = "outbox relay"
	if opts != nil {
		r.outage.Log = opts.Log
	}
	return r
}

// Wake makes a running relay look into the outbox now; call it after a commit, through
// sqldb.AfterCommit. It never blocks. While sending fails it does not shorten the pause.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

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
// One relay per database is at work. On PostgreSQL it holds a session advisory lock, on a
// connection of its own over which it also reads, so it stops sending when it loses the session;
// the others try each second to succeed it. A relay stopped for long in the middle of a batch can
// still send events that its successor sent too. On SQLite it is the lock of a file: see
// [sqldb.TryLease].
//
// It looks into the outbox at [Relay.Wake], every second while nothing comes (± 20 %), every 100 ms
// while something does, and at once after a full batch. It remembers no position: it reads the
// lowest ids, in order, and deletes those that were sent by id. Events of transactions that commit
// late, with ids lower than those already sent, are read then.
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
	for ctx.Err() == nil {
		batch, err := r.fetch(ctx, lease)
		if err != nil {
			r.failed(ctx, backoff, err)
			return
		}
		if err := r.deliver(ctx, batch); err != nil {
			r.failed(ctx, backoff, err)
			continue
		}
		backoff.Reset()
		r.outage.Back(ctx)
		switch len(batch.ids) {
		case 0:
			r.pause(ctx, jitter(idlePoll))
		case batchSize: // more waits
		default:
			r.pause(ctx, jitter(busyPoll))
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

const selectBatch = `SELECT id, msgid, topic, key, headers, payload, raw FROM kaptar_outbox ORDER BY id LIMIT $1`

func (r *Relay) fetch(ctx context.Context, lease *sqldb.Lease) (b batch, err error) {
	err = lease.Use(ctx, func(ctx context.Context, conn *sql.Conn) error {
		b.ids, err = sqldb.Select(ctx, conn, b.scan, selectBatch, batchSize)
		return err
	})
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

func (r *Relay) remove(ctx context.Context, ids []int64) error {
	query, list := `DELETE FROM kaptar_outbox WHERE id = ANY($1)`, any(ids) // pgx takes the slice as an array
	if sqldb.DialectOf(r.db) == sqldb.SQLite {
		text, err := json.Marshal(ids)
		if err != nil {
			return fmt.Errorf("outbox: delete: %w", err)
		}
		query, list = `DELETE FROM kaptar_outbox WHERE id IN (SELECT value FROM json_each($1))`, string(text)
	}
	err := sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, list)
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: delete %d sent rows: %w", len(ids), err)
	}
	return nil
}

// jitter spreads d by ± 20 %.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}

// pause waits for d, or until the relay is woken.
func (r *Relay) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.wake:
	case <-ctx.Done():
	}
}
