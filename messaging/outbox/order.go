package outbox

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	// FirstWait is how long the first event of a key that arrives waits for lower numbers.
	FirstWait = 30 * time.Second

	// GapWait is how long an event waits for a missing one of its key.
	GapWait = 5 * time.Minute

	maxMissed = 1000 // missed numbers of a key that are remembered
)

// An Inbox records what one group has handled or set aside, so that nothing is handled twice.
//
// A message of an ordered topic (header ce-sequence, a number from 1, and a key of at most 255
// bytes) is identified by its source, key and number, and is handled after the one before it. Any
// other is identified by its source and ID.
type Inbox struct {
	Group   string
	Ordered bool // the topic is ordered
	FromNow bool // a key begins with the first number that arrives, without waiting for lower ones
}

// A Turn says what to do with a message, or what has been done with it.
type Turn int

// After the commit a message with any turn except Early can be acknowledged.
const (
	Handle    Turn = iota // the caller has the effect in the same transaction
	Duplicate             // it was handled or set aside before
	Aside                 // SetAside has stored it
	Joined                // it is parked behind another one of its key that is set aside
	Early                 // earlier ones of its key are missing: nothing was written
	Stray                 // it is a dead letter, because its number is not one that can come now
)

// Take marks m as handled, as part of tx, if it is its turn. held is how long m has waited since it
// was [Early] for the first time. From GapWait on it waits no longer and becomes a dead letter. A
// second transaction with the same message, or with another one of the same key of an ordered
// topic, waits for the first to end.
func (b *Inbox) Take(ctx context.Context, tx *sql.Tx, m *driver.Message, held time.Duration) (Turn, error) {
	seq, numbered := b.number(m)
	if !numbered {
		first, err := MarkHandled(ctx, tx, b.Group, m)
		if err == nil && !first {
			return Duplicate, nil
		}
		return Handle, err
	}
	n, err := sqldb.Affected(tx.ExecContext(ctx, `UPDATE kaptar_inbox_keys SET handled = $5, tail = $5, msgid = $6
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND handled = $7 AND tail = $7`,
		b.Group, m.Topic, source(m), m.Key, seq, m.ID, seq-1))
	if err != nil {
		return 0, fmt.Errorf("outbox: number %d of key %q for group %q: %w", seq, m.Key, b.Group, err)
	}
	if n == 1 {
		return Handle, nil
	}
	return b.numbered(ctx, tx, m, seq, held, nil)
}

// SetAside is [Inbox.Take] for a message that could not be handled. Where Take returns [Handle], it
// stores d and returns [Aside]. It sets d.Group and d.Seq.
func (b *Inbox) SetAside(ctx context.Context, tx *sql.Tx, d DeadLetter, held time.Duration) (Turn, error) {
	d.Group = b.Group
	seq, numbered := b.number(&d.Message)
	if numbered {
		d.Seq = seq
		return b.numbered(ctx, tx, &d.Message, seq, held, &d)
	}
	first, err := MarkHandled(ctx, tx, b.Group, &d.Message)
	if err == nil && !first {
		return Duplicate, nil
	}
	if err == nil {
		err = AddDeadLetter(ctx, tx, d)
	}
	return Aside, err
}

// number returns m's number among those of its key, if it has one.
func (b *Inbox) number(m *driver.Message) (int64, bool) {
	if !b.Ordered || m.Raw || len(m.Key) > maxOrderedKey || sqldb.Text(m.Key) != m.Key {
		return 0, false
	}
	seq, err := strconv.ParseInt(m.Headers.Get(driver.HeaderSequence), 10, 64)
	return seq, err == nil && seq > 0
}

// An order is how far a group has come with a key.
type order struct {
	group, topic, source, key string

	first, handled, tail int64
	msgid                string // of tail
}

// lock reads o's row and locks it until tx ends.
func (o *order) lock(ctx context.Context, tx *sql.Tx) (found bool, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE kaptar_inbox_keys SET handled = handled
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 RETURNING first, handled, tail, msgid`,
		o.group, o.topic, o.source, o.key).Scan(&o.first, &o.handled, &o.tail, &o.msgid)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (o *order) save(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE kaptar_inbox_keys SET first = $5, handled = $6, tail = $7, msgid = $8
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4`, o.group, o.topic, o.source, o.key, o.first, o.handled, o.tail, o.msgid)
	return err
}

func (o *order) insert(ctx context.Context, tx *sql.Tx) (done bool, err error) {
	n, err := sqldb.Affected(tx.ExecContext(ctx, `INSERT INTO kaptar_inbox_keys (grp, topic, source, key, first, handled, tail, msgid)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		o.group, o.topic, o.source, o.key, o.first, o.handled, o.tail, o.msgid))
	return n == 1, err
}

// numbered is the general case of Take: m is not the number right after the last one handled. It is
// SetAside if failed is set.
func (b *Inbox) numbered(ctx context.Context, tx *sql.Tx, m *driver.Message, seq int64, held time.Duration, failed *DeadLetter) (Turn, error) {
	o := &order{group: b.Group, topic: m.Topic, source: source(m), key: m.Key}
	turn, err := b.turn(ctx, tx, o, m, seq, held, failed)
	if err != nil {
		return 0, fmt.Errorf("outbox: number %d of key %q for group %q: %w", seq, m.Key, b.Group, err)
	}
	return turn, nil
}

func (b *Inbox) turn(ctx context.Context, tx *sql.Tx, o *order, m *driver.Message, seq int64, held time.Duration, failed *DeadLetter) (Turn, error) {
	for {
		found, err := o.lock(ctx, tx)
		if err != nil {
			return 0, err
		}
		if found {
			break
		}
		if seq > 1 && !b.FromNow && held < FirstWait {
			return Early, nil
		}
		o.first, o.handled, o.tail, o.msgid = seq, seq, seq, m.ID
		if failed != nil {
			o.handled--
		}
		switch done, err := o.insert(ctx, tx); {
		case err != nil:
			return 0, err
		case done && failed != nil:
			return Aside, AddDeadLetter(ctx, tx, *failed)
		case done:
			return Handle, nil
		}
	}
	switch {
	case seq < o.first:
		return o.stray(ctx, tx, m, fmt.Sprintf("number %d came after number %d, with which the order of key %q began here: "+
			"it may have been handled before that; replay it if it was not", seq, o.first, m.Key))
	case seq == o.tail && m.ID != o.msgid, seq < o.tail && madeAfter(m.ID, o.msgid):
		return o.rewound(ctx, tx, m, seq, o.tail, o.msgid)
	case seq <= o.handled:
		return o.past(ctx, tx, m, seq)
	case seq <= o.tail:
		return o.within(ctx, tx, m, seq, failed)
	case seq == o.tail+1 && o.handled == o.tail:
		return o.next(ctx, tx, m, seq, failed)
	case seq == o.tail+1:
		return Joined, o.park(ctx, tx, m, seq, Parked, fmt.Sprintf("waits for number %d of its key", o.handled+1))
	case held < GapWait:
		return Early, nil
	}
	return Stray, o.park(ctx, tx, m, seq, Dead, missing(o.tail+1, seq))
}

// missing is the reason why number seq cannot be handled.
func missing(from, seq int64) string {
	return fmt.Sprintf("numbers %d to %d of its key have not come: it is handled by itself after them if they do; "+
		"replay it to go on without them", from, seq-1)
}

// next handles or sets aside the number right after the tail.
func (o *order) next(ctx context.Context, tx *sql.Tx, m *driver.Message, seq int64, failed *DeadLetter) (Turn, error) {
	o.tail, o.msgid = seq, m.ID
	if failed == nil {
		o.handled = seq
		return Handle, o.save(ctx, tx)
	}
	if err := o.save(ctx, tx); err != nil {
		return 0, err
	}
	return Aside, AddDeadLetter(ctx, tx, *failed)
}

// within is for a number between the last one handled and the tail: it was set aside before, or was
// missing.
func (o *order) within(ctx context.Context, tx *sql.Tx, m *driver.Message, seq int64, failed *DeadLetter) (Turn, error) {
	var id string
	err := tx.QueryRowContext(ctx, `SELECT msgid FROM kaptar_dead_letters
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq = $5`, o.group, o.topic, o.source, o.key, seq).Scan(&id)
	switch {
	case err == nil && id == m.ID:
		return Duplicate, nil
	case err == nil:
		return o.rewound(ctx, tx, m, seq, seq, id)
	case !errors.Is(err, sql.ErrNoRows):
		return 0, err
	case seq == o.handled+1 && failed == nil:
		return Handle, o.advance(ctx, tx, seq)
	}
	letter := DeadLetter{State: Parked, Group: o.group, Message: *m, Seq: seq, Reason: fmt.Sprintf("waits for number %d of its key", o.handled+1)}
	// If an operator has replayed a later one of the key, without those before, that one now waits
	// for this one.
	n, err := sqldb.Affected(tx.ExecContext(ctx, `UPDATE kaptar_dead_letters SET state = 'parked', due_at = NULL, rev = rev + 1
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq > $5 AND state = 'retrying'`, o.group, o.topic, o.source, o.key, seq))
	switch {
	case err != nil:
		return 0, err
	case seq == o.handled+1:
		return Aside, AddDeadLetter(ctx, tx, *failed)
	case n > 0: // this one is next
		letter.State, letter.DueAt = Retrying, time.Now()
		return Joined, AddDeadLetter(ctx, tx, letter)
	}
	var earlier bool
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM kaptar_dead_letters
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq > $5 AND seq < $6)`,
		o.group, o.topic, o.source, o.key, o.handled, seq).Scan(&earlier)
	if err != nil {
		return 0, err
	}
	if !earlier { // an operator sees what is missing at the first one
		letter.State, letter.Reason = Dead, missing(o.handled+1, seq)
	}
	return Joined, AddDeadLetter(ctx, tx, letter)
}

func (o *order) park(ctx context.Context, tx *sql.Tx, m *driver.Message, seq int64, state, reason string) error {
	if seq > o.tail {
		o.tail, o.msgid = seq, m.ID
		if err := o.save(ctx, tx); err != nil {
			return err
		}
	}
	return AddDeadLetter(ctx, tx, DeadLetter{State: state, Group: o.group, Message: *m, Seq: seq, Reason: reason})
}

// rewound is for a number that cannot be a duplicate, because number other belonged to event id
// before.
func (o *order) rewound(ctx context.Context, tx *sql.Tx, m *driver.Message, seq, other int64, id string) (Turn, error) {
	return o.stray(ctx, tx, m, fmt.Sprintf("number %d of key %q came after number %d, event %s, and is another event or a newer one: "+
		"the publisher's database seems to be an older copy of what it was; replay the event if it should be handled", seq, m.Key, other, id))
}

// madeAfter reports whether a was made so long after b that differing clocks do not explain it.
// Only the ids of kaptar (UUID version 7) contain their time; for others it is false.
func madeAfter(a, b string) bool {
	var at [2]time.Time
	for i, id := range []string{a, b} {
		u, err := uuid.Parse(id)
		if err != nil || u.Version() != 7 {
			return false
		}
		at[i] = time.UnixMilli(int64(binary.BigEndian.Uint64(u[:8]) >> 16))
	}
	return at[0].Sub(at[1]) > time.Minute
}

// stray makes m a dead letter outside of the order.
func (o *order) stray(ctx context.Context, tx *sql.Tx, m *driver.Message, reason string) (Turn, error) {
	first, err := MarkHandled(ctx, tx, o.group, m)
	if err != nil {
		return 0, err
	}
	if !first {
		return Duplicate, nil
	}
	return Stray, AddDeadLetter(ctx, tx, DeadLetter{Group: o.group, Message: *m, Reason: reason})
}

// past is for a number up to the last one handled. It is a duplicate, unless the key went on
// without it.
func (o *order) past(ctx context.Context, tx *sql.Tx, m *driver.Message, seq int64) (Turn, error) {
	n, err := sqldb.Affected(tx.ExecContext(ctx, `DELETE FROM kaptar_dead_letters
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq = $5 AND state = '`+missed+`'`,
		o.group, o.topic, o.source, o.key, seq))
	if err != nil || n == 0 {
		return Duplicate, err
	}
	return o.stray(ctx, tx, m, fmt.Sprintf("number %d of key %q came after an operator had the key go on without it", seq, m.Key))
}

// skip gives up the numbers before seq that are neither handled nor set aside. They are remembered,
// so that one that comes after all is not taken for a duplicate.
func (o *order) skip(ctx context.Context, tx *sql.Tx, seq int64) (err error) {
	for n := o.handled + 1; err == nil && n < seq; n++ {
		if n < seq-maxMissed { // too many to remember: those below are strays
			n = seq - maxMissed
			o.first = n
		}
		err = AddDeadLetter(ctx, tx, DeadLetter{State: missed, Group: o.group, Seq: n, Message: driver.Message{
			ID: fmt.Sprintf("number %d of %s %q", n, o.topic, o.key), Topic: o.topic, Key: o.key,
			Headers: driver.Headers{{Name: driver.HeaderSource, Value: o.source}},
		}})
	}
	return err
}

// advance records that number seq is handled, and makes the one after it the next to be tried.
// Where numbers before seq are missing, the key goes on without them.
func (o *order) advance(ctx context.Context, tx *sql.Tx, seq int64) error {
	if seq <= o.handled {
		return nil
	}
	if err := o.skip(ctx, tx, seq); err != nil {
		return err
	}
	o.handled = seq
	type row struct {
		id, seq int64
		state   string
	}
	for dropping := true; dropping; {
		rows, err := sqldb.Select(ctx, tx, func(r sqldb.Row) (one row, err error) { return one, r.Scan(&one.id, &one.seq, &one.state) },
			`SELECT id, seq, state FROM kaptar_dead_letters WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq > $5
			ORDER BY seq LIMIT 1`, o.group, o.topic, o.source, o.key, o.handled)
		if err != nil {
			return err
		}
		dropping = false
		for _, r := range rows {
			switch {
			case r.state == dropped:
				_, err = tx.ExecContext(ctx, `DELETE FROM kaptar_dead_letters WHERE id = $1`, r.id)
				dropping = true
				if err == nil {
					err = o.skip(ctx, tx, r.seq)
				}
				o.handled = r.seq
			case r.seq == o.handled+1:
				_, err = tx.ExecContext(ctx, `UPDATE kaptar_dead_letters SET state = 'retrying', due_at = $2, rev = rev + 1 WHERE id = $1`,
					r.id, time.Now().UnixMilli())
			case r.state == Parked: // or nobody would see it
				_, err = tx.ExecContext(ctx, `UPDATE kaptar_dead_letters SET state = 'dead', reason = $2, rev = rev + 1 WHERE id = $1`,
					r.id, missing(o.handled+1, r.seq))
			}
			if err != nil {
				return err
			}
		}
	}
	return o.save(ctx, tx)
}
