package main

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// An order is what a checkout is about.
type order struct {
	ID    string
	Cents int64
}

// services are the neighbours of a checkout. Each call is safe to repeat: the other side knows it by
// its key. Without a database the calls do nothing and agree.
type services struct {
	db    *sql.DB // of the effects of calls
	end   bool    // a checkout ends with an effect in the database of its own service
	edges atomic.Int64
	die   int64 // at this edge the process kills itself; 0: never
}

// edge is between two effects of a checkout.
func (s *services) edge() {
	if s.edges.Add(1) == s.die {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

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
	s.edge()
	defer s.edge()
	_, err := s.db.ExecContext(ctx, `INSERT INTO effects (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET calls = effects.calls + 1`, key)
	if err == nil && (strings.HasSuffix(key, "0/charge") || strings.HasPrefix(key, "refused") && strings.HasSuffix(key, "/charge")) { // each tenth order
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

// ending writes down, by exec of a transaction, the effect of an end.
func (s *services) ending(exec func() error) error {
	s.edge()
	defer s.edge()
	return exec()
}

// insertEnding is the effect of an end in the service's own database, which is to happen once.
const insertEnding = `INSERT INTO endings (id, status) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET times = endings.times + 1`
