package sqlite

import (
	"context"
	"database/sql/driver"
	"strings"
)

const (
	maxCached      = 64   // statements that a connection keeps prepared
	maxCachedBytes = 4096 // of the text of one
)

// cached reports whether a statement may stay prepared. A pragma must not: some take effect while
// they are prepared, and only then.
func cached(query string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	switch strings.ToUpper(word) {
	case "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE", "BEGIN", "COMMIT":
		return len(query) <= maxCachedBytes
	}
	return false
}

// execCached runs a statement that returns no rows. If it succeeds it stays prepared, since
// preparing takes SQLite longer than running. SQLite prepares it again if the schema changes.
func (c *conn) execCached(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !cached(query) {
		return c.innerConn.ExecContext(ctx, query, args)
	}
	s := c.cache[query]
	if s == nil {
		var err error
		if s, err = c.prepare(ctx, query); err != nil {
			return nil, err
		}
	}
	res, err := s.ExecContext(ctx, args)
	if err != nil {
		delete(c.cache, query)
		_ = s.Close()
		return nil, err
	}
	if len(c.cache) == maxCached && c.cache[query] == nil {
		c.forget()
	}
	c.cache[query] = s
	return res, nil
}

// forget closes the prepared statements.
func (c *conn) forget() {
	for _, s := range c.cache {
		_ = s.Close()
	}
	clear(c.cache)
}

// Close implements driver.Conn.
func (c *conn) Close() error {
	c.forget() // or SQLite would keep the file open
	return c.innerConn.Close()
}
