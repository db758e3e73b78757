//go:build !user_v2

package user

import (
	"context"
	"database/sql"
	"embed"

	"github.com/kaptar/kaptar"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// This file and v2.go are all that the two versions of user-service differ in. go build -tags user_v2
// makes the second one, to rehearse releases with.

const version = "v1"

//go:embed migrations/*/0001_users.sql migrations/*/0002_sessions.sql
var migrations embed.FS

// Profile is what users tell of themselves, inside of a user and of requests: nothing.
type Profile struct{}

const userColumns = "id, username, email"

func (u *user) fields() []any { return []any{&u.ID, &u.Username, &u.Email} }

func (Profile) save(context.Context, *sql.Tx, int64) error { return nil }

func (Profile) fill(*userv1.User) {}

// entry is a user as the cache has it, which all versions share.
type entry struct{ user }

func toEntry(u user) entry { return entry{u} }

func (entry) complete() bool { return true }

// release are the settings of this version alone.
type release struct{}

func (*release) spoil(context.Context) error { return nil }

func (*release) start(*kaptar.App) {}
