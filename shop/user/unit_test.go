package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

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
			{Username: "a", Email: "ada@example.com"}: {},
			ada: {username: true},
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

func TestCheckEmail(t *testing.T) {
	t.Parallel()
	for email, good := range map[string]bool{
		"ada@example.com": true, "a.b+c@mail.example.co.uk": true, "ödön@példa.hu": true,
		strings.Repeat("ö", 108) + "@example.com": true, strings.Repeat("ö", 109) + "@example.com": false,
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
	fmt.Println(users.Name, users.Listen, users.GRPCListen)
	// Output: user-service :8081 :50051
}
