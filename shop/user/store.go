package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// store is all the SQL of user-service; it runs on SQLite and PostgreSQL.
type store struct{ db *sql.DB }

// add inserts u and returns its id. sqldb.Constraint recognises the error of a duplicate.
func (s store) add(ctx context.Context, tx *sql.Tx, u user, hash string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `
		INSERT INTO users (username, email, password_hash, created_at)
		VALUES ($1, $2, $3, $4) RETURNING id`,
		u.Username, u.Email, hash, time.Now().UnixMilli()).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("user: add: %w", err)
	}
	return id, nil
}

// whatIsTaken explains, after add failed, which of u's names others have.
func (s store) whatIsTaken(ctx context.Context, u user) error {
	var names, emails int
	err := s.db.QueryRowContext(ctx, `
		SELECT (SELECT count(*) FROM users WHERE username = $1), (SELECT count(*) FROM users WHERE email = $2)`,
		u.Username, u.Email).Scan(&names, &emails)
	if err != nil {
		return fmt.Errorf("user: what is taken: %w", err)
	}
	return &takenError{username: names > 0, email: emails > 0}
}

// byID returns errNotFound when there is none.
func (s store) byID(ctx context.Context, id int64) (user, error) {
	u := user{ID: id}
	err := s.db.QueryRowContext(ctx, `SELECT username, email FROM users WHERE id = $1`, id).Scan(&u.Username, &u.Email)
	if err != nil {
		return user{}, notFound(err)
	}
	return u, nil
}

// setEmail returns the user with the new address, errNotFound, or a violation as add does.
func (s store) setEmail(ctx context.Context, tx *sql.Tx, id int64, email string) (user, error) {
	u := user{ID: id, Email: email}
	err := tx.QueryRowContext(ctx, `UPDATE users SET email = $1 WHERE id = $2 RETURNING username`, email, id).Scan(&u.Username)
	if err != nil {
		return user{}, notFound(err)
	}
	return u, nil
}

// credentials returns the user with that name and the hash of the password, or errNotFound.
func (s store) credentials(ctx context.Context, username string) (u user, hash string, err error) {
	err = s.db.QueryRowContext(ctx, `
		SELECT id, username, email, password_hash FROM users WHERE username = $1`, username).
		Scan(&u.ID, &u.Username, &u.Email, &hash)
	if err != nil {
		return user{}, "", notFound(err)
	}
	return u, hash, nil
}

// after returns up to limit users whose id is greater than id, in order of id.
func (s store) after(ctx context.Context, id int64, limit int) ([]user, error) {
	users, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (u user, err error) {
		err = row.Scan(&u.ID, &u.Username, &u.Email)
		return u, err
	}, `SELECT id, username, email FROM users WHERE id > $1 ORDER BY id LIMIT $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("user: list: %w", err)
	}
	return users, nil
}

// signingSeed keeps fresh if there is no seed yet, and returns the one that all instances use.
func (s store) signingSeed(ctx context.Context, fresh string) (seed string, err error) {
	_, err = s.db.ExecContext(ctx, `INSERT INTO signing_key (id, seed) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`, fresh)
	if err != nil {
		return "", fmt.Errorf("user: keep signing key: %w", err)
	}
	if err := s.db.QueryRowContext(ctx, `SELECT seed FROM signing_key WHERE id = 1`).Scan(&seed); err != nil {
		return "", fmt.Errorf("user: signing key: %w", err)
	}
	return seed, nil
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return errNotFound
	}
	return fmt.Errorf("user: %w", err)
}
