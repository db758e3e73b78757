package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const maxReason = 16 << 10

// The kinds of dead letters.
const (
	Consume = "consume" // a group could not handle it; the default
	Publish = "publish" // the broker refused it
)

// The states of dead letters.
const (
	Retrying = "retrying" // is retried automatically, at DueAt
	Dead     = "dead"     // waits for an operator; the default
	Parked   = "parked"   // waits for an earlier one of its key; on ordered topics only

	// dropped is a parked one that an operator has dropped. It keeps its number until its turn
	// comes.
	dropped = "dropped"
	// missed is a number that the key went on without. It has no message.
	missed = "missed"

	visible = "state NOT IN ('" + dropped + "', '" + missed + "')"
)

// ErrNoDeadLetter says that a dead letter does not exist, or was changed since it was read. Errors
// wrap it.
var ErrNoDeadLetter = errors.New("no such dead letter")

// A DeadLetter is a message that was set aside.
type DeadLetter struct {
	ID       int64  // set by the database
	Kind     string // Consume or Publish; "" is taken as Consume
	State    string // Retrying, Dead or Parked; "" is taken as Dead
	Group    string // the consumer's, or the publishing service
	Message  driver.Message
	Seq      int64     // number of the message in the order of its key; 0 if it has none
	Reason   string    // the last error; cut at 16 KiB
	Attempts int       // tries so far; AddDeadLetter takes 0 as 1, except for a Parked one
	Retries  int       // tries since it was set aside or replayed
	FirstAt  time.Time // first failure, in milliseconds; zero is taken as LastAt
	LastAt   time.Time // last failure; zero is taken as now
	DueAt    time.Time // next try of a Retrying one; else zero
	Rev      int64     // increases with each change
}

// AddDeadLetter stores d as part of tx, which should be the transaction with the inbox mark (see
// [Inbox.SetAside]). After its commit the message can be acknowledged. If the group has a dead
// letter for this message already, that one gets the new Reason and LastAt, and d.Attempts is added
// to its own.
func AddDeadLetter(ctx context.Context, tx *sql.Tx, d DeadLetter) error {
	m := &d.Message
	if d.Group == "" || m.ID == "" {
		return fmt.Errorf("outbox: dead letter %q of group %q: both must be given", m.ID, d.Group)
	}
	headers, err := m.Headers.MarshalJSON()
	if err != nil {
		return fmt.Errorf("outbox: dead letter %q: %w", m.ID, err)
	}
	d.LastAt = cmp.Or(d.LastAt, time.Now())
	d.FirstAt = cmp.Or(d.FirstAt, d.LastAt)
	seq := sql.NullInt64{Int64: d.Seq, Valid: d.Seq != 0}
	if d.Attempts == 0 && d.State != Parked {
		d.Attempts = 1
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO kaptar_dead_letters
		(kind, state, grp, msgid, source, topic, key, headers, payload, raw, seq, reason, attempts, first_at, last_at, due_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (grp, msgid, source) DO UPDATE SET reason = excluded.reason, last_at = excluded.last_at,
			attempts = kaptar_dead_letters.attempts + excluded.attempts, rev = kaptar_dead_letters.rev + 1`,
		cmp.Or(d.Kind, Consume), cmp.Or(d.State, Dead), d.Group, m.ID, source(m), sqldb.Text(m.Topic), sqldb.Text(m.Key), string(headers), payload(m.Data),
		m.Raw, seq, cutReason(d.Reason), d.Attempts, d.FirstAt.UnixMilli(), d.LastAt.UnixMilli(), millis(d.DueAt))
	if err != nil {
		return fmt.Errorf("outbox: dead letter %q of group %q: %w", m.ID, d.Group, err)
	}
	return nil
}

// millis returns t as the tables store it, NULL for the zero time.
func millis(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

func cutReason(s string) string { return sqldb.Text(s[:min(len(s), maxReason)]) }

// A Filter selects dead letters. Empty fields select all.
type Filter struct {
	Kind, State, Group, Topic, Key string
	MessageID                      string
	Reason                         string    // part of the reason, in upper or lower case
	Since, Until                   time.Time // of the last failure: from, and before
	FailedBefore                   time.Time // the first failure was before that
	After                          int64     // only higher IDs, for the next page
	Limit                          int       // 0 means all
	IDs                            []int64   // only these; nil means all
	WithoutData                    bool      // leave Message.Data nil: each can be a mebibyte
}

// where returns the condition of f and its arguments.
func (f *Filter) where() (condition string, args []any) {
	condition = visible
	add := func(given bool, text string, arg any) {
		if given {
			args = append(args, arg)
			condition += fmt.Sprintf(" AND "+text, len(args))
		}
	}
	for _, equal := range [][2]string{
		{"kind", f.Kind}, {"state", f.State}, {"topic", f.Topic}, {"key", f.Key}, {"msgid", f.MessageID},
	} {
		add(equal[1] != "", equal[0]+" = $%d", equal[1])
	}
	// The name of a group that was reset has a generation.
	add(f.Group != "", "(grp = $%[1]d OR substr(grp, 1, length(CAST($%[1]d AS TEXT)) + 1) = CAST($%[1]d AS TEXT) || '#')", f.Group)
	pattern := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(strings.ToLower(f.Reason))
	add(f.Reason != "", `lower(reason) LIKE $%d ESCAPE '\'`, "%"+pattern+"%")
	add(!f.Since.IsZero(), "last_at >= $%d", f.Since.UnixMilli())
	add(!f.Until.IsZero(), "last_at < $%d", f.Until.UnixMilli())
	add(!f.FailedBefore.IsZero(), "first_at < $%d", f.FailedBefore.UnixMilli())
	add(f.After != 0, "id > $%d", f.After)
	if f.IDs != nil { // numbers need no quoting
		condition += " AND id IN (" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(f.IDs)), ", "), "[]") + ")"
	}
	return condition, args
}

const letterColumns = `id, kind, state, grp, msgid, topic, key, headers, payload, raw, seq, reason, attempts, retries, first_at, last_at, due_at, rev`

// DeadLetters returns the dead letters that f selects, by ID; nil selects all. They include the
// data of the messages, so set Limit where there can be many. q is a *sql.DB or *sql.Tx.
func DeadLetters(ctx context.Context, q sqldb.Querier, f *Filter) ([]DeadLetter, error) {
	if f == nil {
		f = &Filter{}
	}
	where, args := f.where()
	columns := letterColumns
	if f.WithoutData {
		columns = strings.Replace(columns, "payload", "NULL", 1)
	}
	query := "SELECT " + columns + " FROM kaptar_dead_letters WHERE " + where + " ORDER BY id"
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	all, err := sqldb.Select(ctx, q, scanLetter, query, args...)
	if err != nil {
		return nil, fmt.Errorf("outbox: dead letters: %w", err)
	}
	return all, nil
}

// GetDeadLetter returns one dead letter, or an error that wraps [ErrNoDeadLetter]. q is a *sql.DB
// or *sql.Tx.
func GetDeadLetter(ctx context.Context, q sqldb.Querier, id int64) (DeadLetter, error) {
	all, err := sqldb.Select(ctx, q, scanLetter, "SELECT "+letterColumns+" FROM kaptar_dead_letters WHERE id = $1 AND "+visible, id)
	if err == nil && len(all) == 0 {
		err = ErrNoDeadLetter
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("outbox: dead letter %d: %w", id, err)
	}
	return all[0], nil
}

func scanLetter(row sqldb.Row) (d DeadLetter, err error) {
	var headers []byte
	var first, last int64
	var seq, due sql.NullInt64
	m := &d.Message
	err = row.Scan(&d.ID, &d.Kind, &d.State, &d.Group, &m.ID, &m.Topic, &m.Key, &headers, &m.Data, &m.Raw, &seq, &d.Reason,
		&d.Attempts, &d.Retries, &first, &last, &due, &d.Rev)
	if err != nil {
		return d, err
	}
	d.Seq, d.FirstAt, d.LastAt = seq.Int64, time.UnixMilli(first), time.UnixMilli(last)
	if due.Valid {
		d.DueAt = time.UnixMilli(due.Int64)
	}
	return d, m.Headers.UnmarshalJSON(headers)
}
