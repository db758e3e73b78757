package main

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// An order is what a checkout is about.
type order struct {
	ID    string
	Cents int64
}

// services are the neighbours of a checkout. Each call is safe to repeat: the other side knows it by
// its key. Without a database the calls do nothing and agree.
type services struct{ db *sql.DB }

// A reply is what a neighbour says. refused is why not, and after when to ask again for what it cannot
// say yet.
type reply struct {
	refused string
	after   time.Duration
}

const tables = `CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, calls BIGINT NOT NULL DEFAULT 1);
	CREATE TABLE IF NOT EXISTS endings (id TEXT PRIMARY KEY, status TEXT NOT NULL, times BIGINT NOT NULL DEFAULT 1);`

func (s *services) call(ctx context.Context, key string) (reply, error) {
	if s.db == nil {
		return reply{}, nil
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO effects (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET calls = effects.calls + 1`, key)
	if err == nil && strings.HasSuffix(key, "0/charge") { // each tenth order
		return reply{refused: "no money"}, nil
	}
	return reply{}, err
}

func (s *services) reserve(ctx context.Context, o order) (reply, error) {
	return s.call(ctx, o.ID+"/reserve")
}

func (s *services) release(ctx context.Context, o order) error {
	_, err := s.call(ctx, o.ID+"/release")
	return err
}

func (s *services) charge(ctx context.Context, o order) (reply, error) {
	return s.call(ctx, o.ID+"/charge")
}

func (s *services) ship(ctx context.Context, o order) error {
	_, err := s.call(ctx, o.ID+"/ship")
	return err
}

// ending is the effect of an end in the service's own database, which is to happen once.
const ending = `INSERT INTO endings (id, status) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET times = endings.times + 1`
