package notification

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/sqldb"
)

// store is all the SQL of notification-service; it runs on SQLite and PostgreSQL.
type store struct{ db *sql.DB }

// A mail that was sent.
type mail struct {
	ID      int64     `json:"id" example:"1"`
	Subject string    `json:"subject" example:"Order 7 is confirmed"`
	Body    string    `json:"body"`
	SentAt  time.Time `json:"sent_at"`
}

func (s store) add(ctx context.Context, tx *sql.Tx, m events.EmailSendV1, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO mails (user_id, subject, body, sent_at) VALUES ($1, $2, $3, $4)`,
		m.UserID, m.Subject, m.Body, at.UnixMilli())
	if err != nil {
		return fmt.Errorf("notification: add mail: %w", err)
	}
	return nil
}

// of returns the last limit mails to a user, the newest first.
func (s store) of(ctx context.Context, userID int64, limit int) ([]mail, error) {
	mails, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (m mail, err error) {
		var at int64
		err = row.Scan(&m.ID, &m.Subject, &m.Body, &at)
		m.SentAt = time.UnixMilli(at).UTC()
		return m, err
	}, `SELECT id, subject, body, sent_at FROM mails WHERE user_id = $1 ORDER BY id DESC LIMIT $2`, userID, limit)
	if err != nil {
		return nil, fmt.Errorf("notification: mails of user %d: %w", userID, err)
	}
	return mails, nil
}
