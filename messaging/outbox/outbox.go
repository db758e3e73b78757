// Package outbox keeps events from being lost or applied twice, by tables in the service's own
// database.
//
// Outbox: [Add] stores an event in the transaction of the change that it reports, so both are
// committed or neither. A [Relay] sends committed events and deletes a row only after the broker
// has acknowledged it. After a crash in between it sends the row again: delivery is at least once.
//
// Inbox: [Inbox.Take] marks a message as handled in the transaction of its effect. A second
// delivery of the message therefore has no effect: effects happen once in the service's own
// database. On an ordered topic ([AddOrdered]) Take accepts the messages of a key in the order of
// their numbers only.
//
// Dead letters: [Inbox.SetAside] stores a message that could not be handled, together with the same
// mark, so that it can be acknowledged without being lost. It is retried from there
// ([DeadLetter.Take]), or an operator replays or drops it.
//
// [Migrate] creates the tables, all named kaptar_…, on SQLite and PostgreSQL.
package outbox

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Migrate creates the package's tables in db, which sqldb.Open must have opened, or brings them up
// to date. Its version table is kaptar_schema. It may be called at any time, by several processes
// at once.
func Migrate(ctx context.Context, db *sql.DB) error {
	if err := sqldb.Migrate(ctx, db, migrations, "kaptar_schema"); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// Add stores m in the outbox as part of tx: it is sent after tx commits, and never if tx rolls
// back. A message that no broker would accept (see driver.Message) is refused with
// driver.ErrInvalid or driver.ErrTooLarge in the error's chain, because in the outbox it would
// block those behind it. Add does not keep m.
//
// Messages are sent in the order of their ids. For the messages of one key that is the order of the
// commits only if the transactions that touch the key wait for each other, as they do when each
// updates the row that the key names.
func Add(ctx context.Context, tx *sql.Tx, m driver.Message) error {
	if err := check(&m); err != nil {
		return err
	}
	headers, err := m.Headers.MarshalJSON()
	if err != nil {
		return fmt.Errorf("outbox: add: message %q: %w", m.ID, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO kaptar_outbox (msgid, topic, key, headers, payload, raw, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, m.ID, m.Topic, m.Key, string(headers), payload(m.Data), m.Raw, time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("outbox: add message %q to topic %q: %w", m.ID, m.Topic, err)
	}
	return nil
}

func check(m *driver.Message) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("outbox: add: %w", err)
	}
	if strings.ContainsRune(m.Key, 0) {
		return fmt.Errorf("outbox: add: key %q of message %q holds a NUL, which databases refuse: %w", m.Key, m.ID, driver.ErrInvalid)
	}
	return nil
}

const maxOrderedKey = 255 // bytes; an index entry is limited in size

// AddOrdered is [Add] for a message of an ordered topic. It gives m the next number of its topic
// and key, from 1, in the header ce-sequence. The numbers have no gaps. Until tx ends, other
// transactions that take a number of the same key wait, so the messages of a key are sent in the
// order of their commits. A key of more than 255 bytes is refused with driver.ErrInvalid.
func AddOrdered(ctx context.Context, tx *sql.Tx, m driver.Message) error {
	if len(m.Key) > maxOrderedKey {
		return fmt.Errorf("outbox: add: key %.100q of message %q has %d bytes: expected at most %d on an ordered topic: %w",
			m.Key, m.ID, len(m.Key), maxOrderedKey, driver.ErrInvalid)
	}
	if err := check(&m); err != nil {
		return err
	}
	var seq int64
	err := tx.QueryRowContext(ctx, `INSERT INTO kaptar_sequences (topic, key, seq) VALUES ($1, $2, 1)
		ON CONFLICT (topic, key) DO UPDATE SET seq = kaptar_sequences.seq + 1 RETURNING seq`, m.Topic, m.Key).Scan(&seq)
	if err != nil {
		return fmt.Errorf("outbox: number of message %q to topic %q: %w", m.ID, m.Topic, err)
	}
	m.Headers = slices.Clone(m.Headers)
	m.Headers.Set(driver.HeaderSequence, strconv.FormatInt(seq, 10))
	return Add(ctx, tx, m)
}

// payload replaces nil, which drivers would store as NULL.
func payload(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}
