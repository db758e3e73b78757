package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

// TestLostAnswer: a token is good again for a moment after its use, and then ends its session.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		id := addUser(t, s, user{Username: "ada", Email: "ada@example.com"})
		begin := time.Now().Truncate(time.Millisecond)
		first, err := s.open(t.Context(), id, "192.0.2.1", begin, begin.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		second, owner, stolen, err := s.rotate(t.Context(), first, begin)
		if err != nil || owner != id || stolen != 0 || second.session != first.session || second.secret == first.secret {
			t.Fatalf("got %v, %d, %d, %v", second, owner, stolen, err)
		}
		for _, after := range []time.Duration{0, time.Second, lostAnswer - time.Millisecond} {
			if _, owner, _, err = s.rotate(t.Context(), first, begin.Add(after)); err != nil || owner != id {
				t.Errorf("the same token %v later: got user %d, %v, want %d", after, owner, err, id)
			}
		}
		if _, owner, stolen, err = s.rotate(t.Context(), first, begin.Add(lostAnswer)); !errors.Is(err, errNoSession) || stolen != id || owner != 0 {
			t.Errorf("%v later: got users %d and %d, %v, want errNoSession, stolen of %d", lostAnswer, owner, stolen, err, id)
		}
		if _, _, stolen, err = s.rotate(t.Context(), second, begin.Add(lostAnswer)); !errors.Is(err, errNoSession) || stolen != 0 {
			t.Errorf("the session that ended: got %d, %v, want errNoSession", stolen, err)
		}
	})
}

// TestOneOfManyRefreshes has many use a token at once: those who come late get one too, and one of
// all these is good.
func TestOneOfManyRefreshes(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s, now := store{db}, time.Now()
		id := addUser(t, s, user{Username: "ada", Email: "ada@example.com"})
		first, err := s.open(t.Context(), id, "", now, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		next := make([]refreshToken, 8)
		var refreshing sync.WaitGroup
		for i := range next {
			refreshing.Go(func() {
				var err error
				if next[i], _, _, err = s.rotate(t.Context(), first, now); err != nil {
					t.Errorf("refresh %d: %v", i, err)
				}
			})
		}
		refreshing.Wait()
		var good atomic.Int64
		for _, token := range next {
			var stored string
			if err := db.QueryRowContext(t.Context(), `SELECT token FROM sessions WHERE id = $1`, token.id()).Scan(&stored); err != nil {
				t.Fatal(err)
			}
			if stored == token.hash() {
				good.Add(1)
			}
		}
		if good.Load() != 1 {
			t.Errorf("%d of the new tokens are good, want 1", good.Load())
		}
	})
}

// TestSessionsEnd: by age, by making room, and in the background.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s, now := store{db}, time.Now()
		ada := addUser(t, s, user{Username: "ada", Email: "ada@example.com"})
		grace := addUser(t, s, user{Username: "grace", Email: "grace@example.com"})
		count := func() (n int) {
			if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM sessions`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		var tokens []refreshToken
		for i := range maxSessions + 3 {
			token, err := s.open(t.Context(), ada, fmt.Sprint("192.0.2.", i), now.Add(time.Duration(i)*time.Second), now.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
		}
		if n := count(); n != maxSessions {
			t.Errorf("a user has %d sessions, want %d", n, maxSessions)
		}
		for i, client := range []string{"192.0.2.0", fmt.Sprint("192.0.2.", maxSessions)} {
			if known, err := s.knows(t.Context(), "ada", client, now); err != nil || known != (i == 1) {
				t.Errorf("known at %s: got %v, %v", client, known, err)
			}
		}
		if _, _, stolen, err := s.rotate(t.Context(), tokens[maxSessions], now.Add(time.Hour)); !errors.Is(err, errNoSession) || stolen != 0 {
			t.Errorf("after an hour: got %d, %v, want errNoSession and nothing stolen", stolen, err)
		}
		if known, err := s.knows(t.Context(), "ada", fmt.Sprint("192.0.2.", maxSessions), now.Add(time.Hour)); err != nil || known {
			t.Errorf("known by a session that has ended: %v, %v", known, err)
		}
		last, err := s.open(t.Context(), grace, "", now, now.Add(2*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		err = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			for i := range 2*expiredAtOnce + 1 {
				if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, user_id, client, token, previous, rotated_at, expires_at)
					VALUES ($1, $2, '', '', '', 0, 0)`, fmt.Sprint("old-", i), ada); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.dropExpired(t.Context(), now.Add(time.Hour)); err != nil || count() != 1 {
			t.Errorf("%d sessions are left, %v, want 1", count(), err)
		}
		if _, owner, _, err := s.rotate(t.Context(), last, now.Add(time.Hour)); err != nil || owner != grace {
			t.Errorf("the one that is left: got user %d, %v, want %d", owner, err, grace)
		}
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	good := settings{TokenLife: time.Minute, SessionLife: time.Hour, SigningKeyAge: time.Hour, Argon2: cheap()}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for what, change := range map[string]func(*settings){
		"no life":             func(s *settings) { s.TokenLife = 0 },
		"a token of two days": func(s *settings) { s.TokenLife = 48 * time.Hour },
		"a short session":     func(s *settings) { s.SessionLife = time.Second },
		"no age":              func(s *settings) { s.SigningKeyAge = 0 },
		"a negative rate":     func(s *settings) { s.PasswordRate = -1 },
		"no number":           func(s *settings) { s.PasswordRate = math.NaN() },
		"no memory":           func(s *settings) { s.Argon2.Memory = 0 },
		"negative memory":     func(s *settings) { s.Argon2.Memory = -1 << 40 },
		"too little memory":   func(s *settings) { s.Argon2.Memory, s.Argon2.Threads = 15<<10, 2 },
		"2 TiB":               func(s *settings) { s.Argon2.Memory = 2 << 40 },
		"no pass":             func(s *settings) { s.Argon2.Passes = 0 },
		"no thread":           func(s *settings) { s.Argon2.Threads = 0 },
		"no slot":             func(s *settings) { s.Argon2.AtOnce = 0 },
		"no wait":             func(s *settings) { s.Argon2.Wait = 0 },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil {
			t.Errorf("%s: no error for %+v", what, bad)
		}
	}
}
