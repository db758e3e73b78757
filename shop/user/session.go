package user

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

const (
	// maxSessions is how many sessions a user can have; the one refreshed longest ago makes room.
	maxSessions = 20
	// lostAnswer is how long a refresh token is good for another use, in case the answer was lost.
	lostAnswer = 10 * time.Second
	// expiredAtOnce is how many sessions one statement deletes.
	expiredAtOnce = 1000
)

// errNoSession is the one error for every refresh token that is not good.
var errNoSession = errors.New("user: no such session")

// A refreshToken names a session and proves to be its bearer.
type refreshToken struct {
	session [16]byte
	secret  [32]byte
}

func (t refreshToken) String() string {
	return base64.RawURLEncoding.EncodeToString(append(t.session[:], t.secret[:]...))
}

// parseRefreshToken reads what String writes, and nothing else.
func parseRefreshToken(s string) (t refreshToken, ok bool) {
	var raw [len(t.session) + len(t.secret)]byte
	if len(s) != base64.RawURLEncoding.EncodedLen(len(raw)) {
		return refreshToken{}, false
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(s)); err != nil || n != len(raw) {
		return refreshToken{}, false
	}
	copy(t.session[:], raw[:])
	copy(t.secret[:], raw[len(t.session):])
	return t, true
}

// id is the session, and hash the token, as the database knows them.
func (t refreshToken) id() string { return base64.RawURLEncoding.EncodeToString(t.session[:]) }
func (t refreshToken) hash() string {
	sum := sha256.Sum256(t.secret[:])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// open begins a session of a user who has logged in from client.
func (s store) open(ctx context.Context, userID int64, client string, now, expires time.Time) (t refreshToken, err error) {
	rand.Read(t.session[:]) // never fails
	rand.Read(t.secret[:])
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO sessions (id, user_id, client, token, previous, rotated_at, expires_at) VALUES ($1, $2, $3, $4, '', $5, $6)`,
			t.id(), userID, client, t.hash(), now.UnixMilli(), expires.UnixMilli())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			DELETE FROM sessions WHERE user_id = $1 AND id NOT IN (
				SELECT id FROM sessions WHERE user_id = $1 ORDER BY rotated_at DESC, id LIMIT $2)`, userID, maxSessions)
		return err
	})
	if err != nil {
		return refreshToken{}, fmt.Errorf("user: open session: %w", err)
	}
	return t, nil
}

// rotate changes a good token for the next one of its session. A token that was used before, except
// just now, is in the hands of two: the session is deleted, and stolen is whose it was. The
// error may be errNoSession.
func (s store) rotate(ctx context.Context, old refreshToken, now time.Time) (next refreshToken, userID, stolen int64, err error) {
	next = refreshToken{session: old.session}
	rand.Read(next.secret[:]) // never fails
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		userID, stolen = 0, 0
		err := tx.QueryRowContext(ctx, `
			UPDATE sessions SET token = $1, previous = $2, rotated_at = CASE WHEN token = $2 THEN $3 ELSE rotated_at END
			WHERE id = $4 AND expires_at > $3 AND (token = $2 OR previous = $2 AND rotated_at > $5) RETURNING user_id`,
			next.hash(), old.hash(), now.UnixMilli(), old.id(), now.Add(-lostAnswer).UnixMilli()).Scan(&userID)
		if errors.Is(err, sql.ErrNoRows) {
			err = tx.QueryRowContext(ctx, `DELETE FROM sessions WHERE id = $1 AND expires_at > $2 RETURNING user_id`,
				old.id(), now.UnixMilli()).Scan(&stolen)
		}
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return refreshToken{}, 0, 0, fmt.Errorf("user: refresh: %w", err)
	case userID == 0:
		return refreshToken{}, 0, stolen, errNoSession
	}
	return next, userID, 0, nil
}

// end deletes the session of a token, whether it is the last one or one before.
func (s store) end(ctx context.Context, t refreshToken) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM sessions WHERE id = $1`, t.id()); err != nil {
		return fmt.Errorf("user: end session: %w", err)
	}
	return nil
}

// knows reports whether the user has a session that was opened from client.
func (s store) knows(ctx context.Context, username, client string, now time.Time) (known bool, err error) {
	err = s.db.QueryRowContext(ctx, `
		SELECT EXISTS (SELECT 1 FROM sessions JOIN users ON users.id = sessions.user_id
			WHERE users.username = $1 AND sessions.client = $2 AND sessions.expires_at > $3)`,
		username, client, now.UnixMilli()).Scan(&known)
	if err != nil {
		return false, fmt.Errorf("user: known clients: %w", err)
	}
	return known, nil
}

// dropExpired deletes the sessions whose time is over, a part at a time.
func (s store) dropExpired(ctx context.Context, now time.Time) error {
	for {
		n, err := sqldb.Affected(s.db.ExecContext(ctx, `
			DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT $2)`, now.UnixMilli(), expiredAtOnce))
		if err != nil {
			return fmt.Errorf("user: drop expired sessions: %w", err)
		}
		if n < expiredAtOnce {
			return nil
		}
	}
}
