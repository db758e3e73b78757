package inventory

import (
	"database/sql"
	"testing"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

// TestReserveCostsTheSame: a reservation does not get slower with the number of those before it. The
// quickest of many is compared, which others on this machine disturb least.
func TestReserveCostsTheSame(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &store{db, quiet}
		set(t, s, "tea", 1_000_000)
		order := int64(0)
		quickest := func() time.Duration {
			best := time.Hour
			for range 51 {
				order++
				began := time.Now()
				if ok, reason, err := s.reserve(t.Context(), order, []item{{"tea", 1}}); !ok || err != nil {
					t.Fatalf("reserve: %q, %v", reason, err)
				}
				best = min(best, time.Since(began))
			}
			return best
		}
		run := func(statements ...string) {
			t.Helper()
			for _, statement := range statements {
				if _, err := db.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
		}
		toDisk := "CHECKPOINT" // or a commit waits for the writes of the statements before
		if sqldb.DialectOf(db) == sqldb.SQLite {
			toDisk = "PRAGMA wal_checkpoint(TRUNCATE)"
		}
		quickest() // connections and statements
		var few, many time.Duration
		for range 3 { // others use this machine too: what grows does so each time
			few = quickest()
			run(`INSERT INTO reservations (order_id, state, changed_at)
				WITH RECURSIVE n (id) AS (SELECT 1000 UNION ALL SELECT id + 1 FROM n WHERE id < 101000) SELECT id, 'shipped', 0 FROM n`,
				`INSERT INTO reservation_items (order_id, sku, quantity) SELECT order_id, 'tea', 1 FROM reservations WHERE order_id >= 1000`,
				`ANALYZE`, // as PostgreSQL does by itself within a minute
				toDisk)
			if many = quickest(); many <= 5*few {
				return
			}
			run(`DELETE FROM reservation_items WHERE order_id >= 1000`, `DELETE FROM reservations WHERE order_id >= 1000`, `ANALYZE`, toDisk)
		}
		t.Errorf("a reservation takes %v beside 100,000, %v beside some", many, few)
	})
}
