package messaging

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// A record is what is kept of a change that somebody made by hand, as it is shown.
type record struct {
	Service   string          `json:"service"`
	ID        int64           `json:"id"`
	At        time.Time       `json:"at"`
	Who       string          `json:"who"`
	Why       string          `json:"why"`
	Action    string          `json:"action"`
	Group     string          `json:"group"`
	Topic     string          `json:"topic"`
	Key       string          `json:"key"`
	MessageID string          `json:"message_id,omitempty"`
	Source    string          `json:"source,omitempty"`
	Before    json.RawMessage `json:"before"` // what was changed
}

// of fills in the dead letter that is changed.
func (r *record) of(d *outbox.DeadLetter) *record {
	m := &d.Message
	r.Group, r.Topic, r.Key, r.MessageID, r.Source = d.Group, m.Topic, m.Key, m.ID, m.Headers.Get(driver.HeaderSource)
	r.Before, _ = json.Marshal(map[string]any{ // of strings and numbers
		"state": d.State, "reason": d.Reason, "attempts": d.Attempts, "seq": d.Seq, "headers": m.Headers, "data": m.Data,
	})
	return r
}

// add stores r, as part of the transaction with the change.
func (r *record) add(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO kaptar_dead_letter_audit (at, who, why, action, grp, msgid, source, topic, key, before)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, time.Now().UnixMilli(), sqldb.Text(r.Who), sqldb.Text(r.Why), r.Action, r.Group,
		r.MessageID, sqldb.Text(r.Source), sqldb.Text(r.Topic), sqldb.Text(r.Key), string(r.Before))
	if err != nil {
		return fmt.Errorf("messaging: audit: %w", err)
	}
	return nil
}

// An auditPage is a part of what is kept.
type auditPage struct {
	Audit []record `json:"audit"`
}

// Rows implements operate.Rows.
func (p *auditPage) Rows() (rows [][]string, note string) {
	for i := range p.Audit {
		r := &p.Audit[i]
		rows = append(rows, []string{r.At.Format(time.RFC3339), r.Service, r.Who, r.Action, r.Topic, r.Key, r.MessageID, r.Why})
	}
	return rows, ""
}

// audit returns at most limit records, the last ones first; with before other than 0 those with a
// lower number.
func (o *operator) audit(ctx context.Context, before int64, limit int) (*auditPage, error) {
	all, err := sqldb.Select(ctx, o.db, func(row sqldb.Row) (record, error) {
		r := record{Service: o.bus.app.Name()}
		var at int64
		var text string
		err := row.Scan(&r.ID, &at, &r.Who, &r.Why, &r.Action, &r.Group, &r.MessageID, &r.Source, &r.Topic, &r.Key, &text)
		r.At, r.Before = time.UnixMilli(at).UTC(), json.RawMessage(text)
		return r, err
	}, `SELECT id, at, who, why, action, grp, msgid, source, topic, key, before FROM kaptar_dead_letter_audit
		WHERE $1 = 0 OR id < $1 ORDER BY id DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("messaging: %s: audit: %w", o.bus.app.Name(), err)
	}
	return &auditPage{all}, nil
}
