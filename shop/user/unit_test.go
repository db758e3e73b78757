package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

func addUser(t *testing.T, s store, u user) int64 {
	t.Helper()
	var id int64
	err := sqldb.InTx(t.Context(), s.db, func(ctx context.Context, tx *sql.Tx) (err error) {
		id, err = s.add(ctx, tx, u, "hash of "+u.Username)
		return err
	})
	if err != nil {
		t.Fatalf("add %+v: %v", u, err)
	}
	return id
}

func TestStore(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s, ctx := store{db}, t.Context()
		ada := user{Username: "ada", Email: "ada@example.com"}
		ada.ID = addUser(t, s, ada)

		if got, err := s.byID(ctx, ada.ID); err != nil || got != ada {
			t.Errorf("byID: got %+v, %v, want %+v", got, err, ada)
		}
		if _, err := s.byID(ctx, ada.ID+1); !errors.Is(err, errNotFound) {
			t.Errorf("byID of nobody: got %v, want errNotFound", err)
		}
		if got, hash, err := s.credentials(ctx, "ada"); err != nil || got != ada || hash != "hash of ada" {
			t.Errorf("credentials: got %+v, %q, %v", got, hash, err)
		}
		if _, _, err := s.credentials(ctx, "grace"); !errors.Is(err, errNotFound) {
			t.Errorf("credentials of nobody: got %v, want errNotFound", err)
		}
		for u, want := range map[user]takenError{
			{Username: "ada", Email: "a@example.com"}: {username: true},
			{Username: "a", Email: "ada@example.com"}: {email: true},
			ada: {username: true, email: true},
		} {
			err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				_, err := s.add(ctx, tx, u, "")
				return err
			})
			if _, taken := sqldb.Constraint(err); !taken {
				t.Errorf("add %+v: got %v, want a violation of a constraint", u, err)
			}
			var got *takenError
			if err := s.whatIsTaken(ctx, u); !errors.As(err, &got) || *got != want {
				t.Errorf("what is taken of %+v: got %v, want %v", u, err, &want)
			}
		}
	})
}

// TestOneKey starts many instances on one database at once: they agree on a key.
func TestOneKey(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		var mu sync.Mutex
		ids := make(map[string]int)
		var starting sync.WaitGroup
		for range 8 {
			starting.Go(func() {
				issuer, err := newTokens(t.Context(), store{db})
				if err != nil {
					t.Errorf("new tokens: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				ids[issuer.public.ID]++
			})
		}
		starting.Wait()
		if len(ids) != 1 {
			t.Errorf("8 instances have the keys %v, want one", ids)
		}
	})
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	p, err := newPasswords()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := p.hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("got %q, %v", hash, err)
	}
	if again, _ := p.hash(t.Context(), "correct horse"); again == hash {
		t.Errorf("two hashes of one password are the same: no salt")
	}
	for _, tt := range []struct {
		password, hash string
		want           bool
	}{
		{"correct horse", hash, true},
		{"correct horse ", hash, false},
		{"", hash, false},
		{"correct horse", p.nobodys, false},
	} {
		if got, err := p.match(t.Context(), tt.password, tt.hash); got != tt.want || err != nil {
			t.Errorf("match(%q, %s): got %v, %v, want %v", tt.password, tt.hash, got, err, tt.want)
		}
	}
	for _, damaged := range []string{"", "secret", "$argon2i$v=19$m=1,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=x,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=8,t=1,p=1$!$AAAA"} {
		if ok, err := p.match(t.Context(), "secret", damaged); ok || err == nil {
			t.Errorf("match with stored hash %q: got %v, %v, want an error", damaged, ok, err)
		}
	}
}

// TestHashesAtOnce finds the third one waiting, and giving up when its time is over.
func TestHashesAtOnce(t *testing.T) {
	t.Parallel()
	p, err := newPasswords()
	if err != nil {
		t.Fatal(err)
	}
	for range hashesAtOnce {
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.hash(ctx, "correct horse"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with all slots busy: got %v, want context.DeadlineExceeded", err)
	}
	<-p.slots
	if _, err := p.hash(t.Context(), "correct horse"); err != nil {
		t.Errorf("with a free slot: %v", err)
	}
	if cap(p.slots) != 2 {
		t.Errorf("%d hashes at once, want 2", cap(p.slots))
	}
}

// TestUnknownUserTakesTheSameTime counts the work instead of the time: a login of
// nobody computes a hash with the same parameters.
func TestUnknownUserTakesTheSameTime(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		p, err := newPasswords()
		if err != nil {
			t.Fatal(err)
		}
		s := &service{store: store{db}, passwords: p}
		for _, username := range []string{"nobody", "no user is called this"} {
			if _, err := s.login(t.Context(), username, "correct horse"); !errors.Is(err, errWrongLogin) {
				t.Errorf("login of %q: got %v, want errWrongLogin", username, err)
			}
			for range hashesAtOnce {
				p.slots <- struct{}{}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := s.login(ctx, username, "correct horse"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("login of %q with all slots busy: got %v, want it to wait for a slot as others do", username, err)
			}
			cancel()
			for range hashesAtOnce {
				<-p.slots
			}
		}
		ofUser, _ := p.hash(t.Context(), "correct horse")
		if params := func(hash string) string { return strings.Join(strings.Split(hash, "$")[:4], "$") }; params(ofUser) != params(p.nobodys) {
			t.Errorf("nobody's hash %s has other parameters than a user's %s", p.nobodys, ofUser)
		}
	})
}

func TestCheckEmail(t *testing.T) {
	t.Parallel()
	for email, good := range map[string]bool{
		"ada@example.com": true, "a.b+c@mail.example.co.uk": true, "ödön@példa.hu": true,
		"": false, "ada": false, "@example.com": false, "ada@": false, "ada@example": false, "ada@.com": false, "ada@example.": false,
		"ada@@example.com": false, " ada@example.com": false, "ada@example.com ": false, "<ada@example.com>": false,
		"ada@example.com, grace@example.com": false, "ada@exa\x00mple.com": false, "ada\r\n@example.com": false,
	} {
		if got := checkEmail(email) == nil; got != good {
			t.Errorf("checkEmail(%q): got %v, want %v", email, got, good)
		}
	}
}

func ExampleService() {
	users := Service()
	fmt.Println(users.Name, users.Version, users.Listen, users.GRPCListen)
	// Output: user-service v1 :8081 :50051
}
