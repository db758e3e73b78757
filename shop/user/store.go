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
	return id, u.save(ctx, tx, id)
}

// whatIsTaken explains, after add failed, which of u's names others have.
func (s store) whatIsTaken(ctx context.Context, u user) error {
	var names int
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM users WHERE username = $1`, u.Username).Scan(&names); err != nil {
		return fmt.Errorf("user: what is taken: %w", err)
	}
	return &takenError{username: names > 0}
}

// byID returns errNotFound when there is none.
func (s store) byID(ctx context.Context, id int64) (u user, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, id).Scan(u.fields()...)
	if err != nil {
		return user{}, notFound(err)
	}
	return u, nil
}

// change gives the user of that id another address and profile. It returns the user as stored,
// errNotFound, or a violation as add does.
func (s store) change(ctx context.Context, tx *sql.Tx, u user) (user, error) {
	err := u.save(ctx, tx, u.ID)
	if err != nil {
		return user{}, err
	}
	err = tx.QueryRowContext(ctx, `UPDATE users SET email = $1 WHERE id = $2 RETURNING `+userColumns, u.Email, u.ID).Scan(u.fields()...)
	if err != nil {
		return user{}, notFound(err)
	}
	return u, nil
}

// credentials returns the user with that name and the hash of the password, or errNotFound.
func (s store) credentials(ctx context.Context, username string) (u user, hash string, err error) {
	err = s.db.QueryRowContext(ctx, `
		SELECT `+userColumns+`, password_hash FROM users WHERE username = $1`, username).
		Scan(append(u.fields(), &hash)...)
	if err != nil {
		return user{}, "", notFound(err)
	}
	return u, hash, nil
}

// after returns up to limit users whose id is greater than id, in order of id.
func (s store) after(ctx context.Context, id int64, limit int) ([]user, error) {
	users, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (u user, err error) {
		err = row.Scan(u.fields()...)
		return u, err
	}, `SELECT `+userColumns+` FROM users WHERE id > $1 ORDER BY id LIMIT $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("user: list: %w", err)
	}
	return users, nil
}

// renewHash stores the hash of a password anew, unless the password has changed meanwhile.
func (s store) renewHash(ctx context.Context, id int64, old, fresh string) error {
	_, err := s.db.ExecContext(ctx, `UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3`, fresh, id, old)
	return err
}

// signingKeys returns all keys by their number.
func (s store) signingKeys(ctx context.Context) ([]signingKey, error) {
	return sqldb.Select(ctx, s.db, func(row sqldb.Row) (signingKey, error) {
		var number, from int64
		var seed string
		if err := row.Scan(&number, &seed, &from); err != nil {
			return signingKey{}, err
		}
		return newSigningKey(number, seed, time.UnixMilli(from))
	}, `SELECT number, seed, signs_from FROM signing_keys ORDER BY number`)
}

// addSigningKey does nothing if there is a key with that number.
func (s store) addSigningKey(ctx context.Context, number int64, seed string, from time.Time) error {
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO signing_keys (number, seed, signs_from) VALUES ($1, $2, $3) ON CONFLICT (number) DO NOTHING`,
		number, seed, from.UnixMilli())
	return err
}

// dropSigningKeys deletes those below number.
func (s store) dropSigningKeys(ctx context.Context, number int64) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM signing_keys WHERE number < $1`, number)
	return err
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return errNotFound
	}
	return fmt.Errorf("user: %w", err)
}
