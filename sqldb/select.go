package sqldb

import (
	"context"
	"database/sql"
	"strings"
)

// A Row is a *sql.Row or one of *sql.Rows.
type Row interface{ Scan(dest ...any) error }

// A Querier is a *sql.DB, *sql.Tx or *sql.Conn.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Select runs a query on q and returns the result of scan for each row. Without rows the slice is
// empty but not nil. scan must not keep the row.
func Select[T any](ctx context.Context, q Querier, scan func(Row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// Text returns s as both dialects can store it: what is not UTF-8, and NUL, is replaced by U+FFFD. An
// error's text, which may quote anything, goes through it.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Affected returns how many rows a statement has changed, as in Affected(tx.ExecContext(…)).
func Affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
