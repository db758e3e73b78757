package sqldb

import (
	"database/sql"
	"os"
	"time"
)

// File is what holds a lease of SQLite.
func (l *Lease) File() *os.File { return l.file }

// Waiting returns how many callers of InTx wait for their turn.
func Waiting(db *sql.DB) int {
	q := driverOf(db).queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiters)
}

// FreshGroup makes the open group young, so that a slow test is not cut into two groups.
func FreshGroup(db *sql.DB) {
	if g := driverOf(db).queue.group; g != nil {
		g.begun = time.Now().Add(time.Minute)
	}
}

// Commits returns how many groups were committed or rolled back as a whole.
func Commits(db *sql.DB) int { return int(driverOf(db).queue.groups.Load()) }
