//go:build user_v2

package user

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"testing"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestProfile(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		id := addUser(t, s, user{Username: "ada", Email: "ada@example.com", Profile: Profile{"Ada Lovelace"}})
		for _, change := range []struct{ name, want string }{{"", "Ada Lovelace"}, {"Countess", "Countess"}, {"", "Countess"}} {
			var u user
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) (err error) {
				u, err = s.change(ctx, tx, user{ID: id, Email: "a@example.com", Profile: Profile{change.name}})
				return err
			})
			if want := (user{id, "ada", "a@example.com", Profile{change.want}}); err != nil || u != want {
				t.Errorf("changed: %+v, %v, want %+v", u, err, want)
			}
		}
		if _, err := db.Exec(`UPDATE users SET display_name = NULL`); err != nil { // as v1 leaves it
			t.Fatal(err)
		}
		if u, err := s.byID(t.Context(), id); err != nil || u.DisplayName != "" {
			t.Errorf("a row of v1: %+v, %v", u, err)
		}
	})
}

func TestFlaws(t *testing.T) {
	t.Parallel()
	var f flaw
	if err := f.UnmarshalText([]byte("mean")); err == nil || err.Error() != `"mean": expected errors, slow or leak` {
		t.Errorf("bad=mean: %v", err)
	}
	for name, want := range map[flaw]int{"": 0, "errors": 20, "leak": 0, "slow": 0} {
		r, failed := release{Bad: config.NewLive(name)}, 0
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // so that slow does not take its time
			if err := r.spoil(ctx); errors.Is(err, errBad) {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if failed != want {
			t.Errorf("bad=%s: %d of 100 reads fail, want %d", name, failed, want)
		}
	}
}

// What v1 has put into the cache is known by what it lacks.
func TestEntryOfV1(t *testing.T) {
	t.Parallel()
	own, err := json.Marshal(toEntry(user{1, "ada", "ada@example.com", Profile{"Ada"}}))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{string(own): true, `{"id":1,"username":"ada","email":"ada@example.com"}`: false} {
		var e entry
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.complete() != want || e.Username != "ada" {
			t.Errorf("%s: %+v, %v, complete %t, want %t", text, e, err, e.complete(), want)
		}
	}
}
