//go:build user_v2

package user

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/steady"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

const version = "v2"

//go:embed migrations
var migrations embed.FS

// Profile is what users tell of themselves, inside of a user and of requests.
type Profile struct {
	DisplayName string `json:"display_name,omitempty" minLength:"1" maxLength:"80" example:"Ada Lovelace" doc:"How others see the user."`
}

// The column is NULL in the rows of v1.
const userColumns = "id, username, email, COALESCE(display_name, '')"

func (u *user) fields() []any { return []any{&u.ID, &u.Username, &u.Email, &u.DisplayName} }

// save stores what there is in the user's row, and leaves the rest as it is.
func (p Profile) save(ctx context.Context, tx *sql.Tx, id int64) error {
	if p.DisplayName == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `UPDATE users SET display_name = $1 WHERE id = $2`, p.DisplayName, id)
	if err != nil {
		return fmt.Errorf("user: save profile: %w", err)
	}
	return nil
}

func (p Profile) fill(u *userv1.User) {
	if p.DisplayName != "" {
		u.DisplayName = &p.DisplayName
	}
}

// entry is a user as the cache has it, which all versions share. What v1 has put there lacks V2.
type entry struct {
	user
	V2 bool `json:"v2"`
}

func toEntry(u user) entry { return entry{u, true} }

func (e entry) complete() bool { return e.V2 }

// release are the settings of this version alone.
type release struct {
	Bad config.Live[flaw] `config:"bad" help:"to rehearse a release that fails: errors, slow or leak; default: none"`

	reads int64 // of users; atomic
}

// A flaw makes a version bad on purpose.
type flaw string

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *flaw) UnmarshalText(text []byte) error {
	switch *f = flaw(text); *f {
	case "", "errors", "slow", "leak":
		return nil
	}
	return fmt.Errorf("%q: expected errors, slow or leak", text)
}

// What the flaws are: each fifth read of a user fails, each takes 50 ms more, or memory grows by
// 10 MiB a second up to 1 GiB.
const (
	failEach  = 5
	slowBy    = 50 * time.Millisecond
	leakEvery = 100 * time.Millisecond
	leakBy    = 1 << 20
	leakMost  = 1 << 10
)

var errBad = errors.New("user: this version is bad on purpose: the setting bad is errors")

// spoil is called before a user is read.
func (r *release) spoil(ctx context.Context) error {
	switch r.Bad.Get() {
	case "errors":
		if atomic.AddInt64(&r.reads, 1)%failEach == 0 {
			return errBad
		}
	case "slow":
		steady.Sleep(ctx, slowBy)
	}
	return nil
}

func (r *release) start(app *kaptar.App) {
	app.Go("leak", func(ctx context.Context) error {
		var leak [][]byte
		for steady.Sleep(ctx, leakEvery) {
			if r.Bad.Get() == "leak" && len(leak) < leakMost {
				piece := make([]byte, leakBy)
				for i := range piece { // memory that nobody has written to is not there yet
					piece[i] = 1
				}
				leak = append(leak, piece)
			}
		}
		return nil
	})
}
