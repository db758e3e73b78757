package kaptartest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/kaptar/kaptar/sqldb"
)

// lite is the part of a connection of package drivers/sqlite that is used here.
type lite interface {
	sqldb.GroupConn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
}

// A session is a connection of package drivers/sqlite with its prepared statements, since parsing
// costs most. The lives of an instance use it one after the other.
type session struct {
	lite

	stmts map[string]prepared
}

// take returns a session that is not in use.
func (st *store) take() (*session, error) {
	if s := st.idleSession(); s != nil {
		return s, nil
	}
	raw, err := st.db.Driver().Open("")
	if err != nil {
		return nil, err
	}
	inner, ok := raw.(lite)
	if !ok {
		return nil, errors.Join(fmt.Errorf("kaptartest: a connection %T lacks methods that are needed", raw), raw.Close())
	}
	// A crash of a process loses nothing that the operating system was told to write.
	if _, err := inner.ExecContext(context.Background(), "PRAGMA synchronous = OFF", nil); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return &session{inner, make(map[string]prepared)}, nil
}

func (st *store) idleSession() *session {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := len(st.idle)
	if n == 0 {
		return nil
	}
	s := st.idle[n-1]
	st.idle = st.idle[:n-1]
	return s
}

func (st *store) give(s *session) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.idle = append(st.idle, s)
}

func (s *session) close() {
	for _, st := range s.stmts {
		_ = st.Close()
	}
	_ = s.lite.Close()
}

// prepared is a statement of package drivers/sqlite.
type prepared interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// prepare returns the statement of query, which it keeps.
func (s *session) prepare(ctx context.Context, query string) (prepared, error) {
	if st := s.stmts[query]; st != nil {
		return st, nil
	}
	raw, err := s.lite.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	st, ok := raw.(prepared)
	if !ok {
		return nil, errors.Join(fmt.Errorf("kaptartest: a statement %T lacks methods that are needed", raw), raw.Close())
	}
	s.stmts[query] = st
	return st, nil
}
