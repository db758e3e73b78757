package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/lead"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	batchSize   = 500
	idlePoll    = time.Second
	busyPoll    = 100 * time.Millisecond
	leasePoll   = time.Second
	deleteGrace = 5 * time.Second
	leaseName   = "outbox relay"
	signalName  = "outbox"
)

// RelayOptions configure a Relay. nil and the zero value are the defaults.
type RelayOptions struct {
	Log  *slog.Logger  // logs when sending starts to fail and when it recovers; nil logs nothing
	Keep time.Duration // how long sent events are kept for Resend; default 0, not at all

	// Apart lists the topics of each broker, if there are several. The events of a list are sent
	// independently of the others, so that a broker that is away holds up its own events only.
	// Topics in no list are sent together. A topic is in one list at most.
	Apart [][]string
}

// A Relay sends the events of one database's outbox. Its methods may be called concurrently.
type Relay struct {
	db     *sql.DB
	send   func(context.Context, []driver.Message) error
	keep   time.Duration
	signal *sqldb.Signal
	poll   time.Duration // idlePoll, except in tests
	every  time.Duration // boundEvery, except in tests
	routes []*route
	outage steady.Outage // of the database
}

// A route is the topics of one broker. Its events are sent in order, one batch at a time.
type route struct {
	topics []string      // with rest, those of the other routes
	rest   bool          // it has all topics that no other route has
	signal *sqldb.Signal // one for each waiter
	outage steady.Outage // of the broker
}

// NewRelay returns a relay that reads from db and calls send. db must have been opened by
// sqldb.Open and migrated by [Migrate]. Nothing starts before [Relay.Run].
//
// send gets at most 500 messages in the order of the outbox, and returns nil once the broker has
// stored them all durably. On an error none of them counts as sent, except that a
// *driver.PartialError in its chain says how many of the first messages were. All messages of a
// call are of one list of RelayOptions.Apart, or of none. send is called concurrently for different
// lists only, and must return when its ctx ends.
func NewRelay(db *sql.DB, send func(context.Context, []driver.Message) error, opts *RelayOptions) *Relay {
	r := &Relay{db: db, send: send, signal: sqldb.NewSignal(db, signalName), poll: idlePoll, every: boundEvery}
	if opts == nil {
		opts = new(RelayOptions)
	}
	r.keep, r.outage.What, r.outage.Log = opts.Keep, "outbox relay", opts.Log
	r.route(slices.Concat(opts.Apart...)).rest = true
	for _, topics := range opts.Apart {
		r.route(topics).outage.Attrs = []slog.Attr{slog.Any("topics", topics)}
	}
	return r
}

func (r *Relay) route(topics []string) *route {
	t := &route{topics: topics, signal: sqldb.NewSignal(r.db, signalName), outage: steady.Outage{What: r.outage.What, Log: r.outage.Log}}
	r.routes = append(r.routes, t)
	return t
}

// Wake makes the leading relay read the outbox now, in whatever process it runs (see
// [sqldb.Signal]). Call it after a commit, through sqldb.AfterCommit. It never blocks, and does not
// shorten the backoff while sending fails.
func (r *Relay) Wake() { r.signal.Notify() }

// Backlog returns the number of committed events that wait, and the age of the oldest, 0 if there
// is none.
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

// Run sends until ctx ends and then returns nil. It does not empty the outbox first: what is left
// is sent after the next start. When the database or the broker fails, Run logs it once and retries
// after 100 ms, doubled up to 5 s. It returns an error only if the database was not opened by
// sqldb.Open.
//
// Of the relays of one database only the one with the lease works, see [sqldb.TryLease]. The others
// try to get the lease every second (± 20 %). On PostgreSQL the relay reads over the session that
// holds the lease, and checks before each batch that the lease is still held. A relay that is
// suspended in the middle of a batch can still send events that its successor has sent too.
//
// Each list of RelayOptions.Apart is sent independently, so there is no order between their topics.
//
// The relay reads the outbox after [Relay.Wake], every second (± 20 %) while it is idle, every 100
// ms while events come, and at once after a full batch. It remembers no position: it reads the
// lowest ids in order and deletes what was sent by id. So it also finds events of transactions that
// commit late with ids below those that were already sent. The cost of a batch does not grow with
// the backlog, nor with deleted rows that PostgreSQL cannot remove yet; see bound.
func (r *Relay) Run(ctx context.Context) error {
	if sqldb.DialectOf(r.db) == "" {
		return errors.New("outbox: relay: the database was not opened by sqldb.Open")
	}
	lead.Run(ctx, r.db, leaseName, leasePoll, &r.outage, r.lead)
	return nil
}

// lead sends while the lease is held. It reads over the session of the lease, so that nothing is
// sent once that is lost, and returns why it had to stop.
func (r *Relay) lead(ctx context.Context, lease *sqldb.Lease, well func()) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	l := &leader{Relay: r, lease: lease, well: well}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, of := range r.routes {
		all.Go(func() { end(newTurn(l, of).run(ctx)) })
	}
	all.Wait()
	return context.Cause(ctx)
}

type batch struct {
	ids  []int64
	msgs []driver.Message
	last int64 // the highest id before the read, of any route; 0 with one route
}

const selectBatch = `SELECT id, msgid, topic, key, headers, payload, raw FROM kaptar_outbox WHERE id > $1 ORDER BY id LIMIT $2`

// A leader is a Relay while it has the lease.
type leader struct {
	*Relay

	lease *sqldb.Lease
	well  func() // to be called when the database has answered
}

// A turn is a route while its relay leads.
type turn struct {
	*leader
	*route

	query  string
	args   []any // behind the first two
	bound  bound
	purged time.Time // when there was last nothing more to purge
}

func newTurn(l *leader, of *route) *turn {
	dialect := sqldb.DialectOf(l.db)
	t := &turn{leader: l, route: of, query: selectBatch, bound: bound{every: l.every}}
	if len(l.routes) > 1 {
		which := "topic = ANY($3)"
		if of.rest {
			which = "NOT " + which
		}
		statement, list := anyOf(dialect, of.topics)
		t.query = statement(strings.Replace(selectBatch, "id > $1", "id > $1 AND "+which, 1))
		t.args, t.bound.serial = []any{list}, dialect == sqldb.SQLite
	}
	return t
}

// run sends the events of the route until ctx ends, or returns why the relay no longer leads.
func (t *turn) run(ctx context.Context) error {
	backoff := &steady.Backoff{First: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		batch, err := t.fetch(ctx)
		if err == nil {
			t.well()
			err = t.deliver(ctx, batch)
		}
		if err == nil {
			t.bound.delivered(batch.ids, batch.last)
			if t.rest {
				err = t.purge(ctx)
			}
		}
		if err != nil {
			if t.lease.Check(ctx) != nil { // then Run tells of it, once for all routes
				return err
			}
			if ctx.Err() == nil {
				t.route.outage.Lost(ctx, err)
				steady.Sleep(ctx, backoff.Next())
			}
			continue
		}
		backoff.Reset()
		t.route.outage.Back(ctx)
		switch len(batch.ids) {
		case 0:
			t.route.signal.Wait(ctx, steady.Jitter(t.poll))
		case batchSize: // there is more
		default:
			t.route.signal.Wait(ctx, steady.Jitter(min(busyPoll, t.poll)))
		}
	}
	return nil
}

// keepIndex makes PostgreSQL read the outbox by its index. The outbox is empty most of the time,
// and a plan made then scans and sorts the whole table for each batch of a backlog until new
// statistics are collected.
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

// fetch reads the next batch and checks that the lease is still held.
func (t *turn) fetch(ctx context.Context) (b batch, err error) {
	postgres := sqldb.DialectOf(t.db) == sqldb.Postgres
	err = t.lease.Use(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		if postgres {
			if err := t.bound.look(ctx, conn); err != nil {
				return err
			}
		}
		if len(t.routes) > 1 { // before the read, which has to find all up to it
			if err := conn.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM kaptar_outbox").Scan(&b.last); err != nil {
				return err
			}
		}
		b.ids, err = sqldb.Select(ctx, conn, b.scan, t.query, append([]any{t.bound.least(), batchSize}, t.args...)...)
		return err
	})
	if err == nil && len(b.ids) > 0 {
		err = t.lease.Check(ctx)
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

// deliver sends b, unless it is empty, and deletes what was sent.
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
		// Delete them even if ctx has ended, or they would be sent again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteGrace)
		defer cancel()
		if err := r.remove(ctx, b.ids[:sent]); err != nil {
			return errors.Join(sendErr, err)
		}
	}
	return sendErr
}
