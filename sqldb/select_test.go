package sqldb_test

import (
	"slices"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

func TestSelect(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		scan := func(row sqldb.Row) (n int, err error) {
			err = row.Scan(&n)
			return n, err
		}
		got, err := sqldb.Select(t.Context(), db, scan, "SELECT 7 UNION ALL SELECT $1", 8)
		if slices.Sort(got); err != nil || !slices.Equal(got, []int{7, 8}) {
			t.Errorf("got %v, %v; want 7 and 8", got, err)
		}
		if got, err := sqldb.Select(t.Context(), db, scan, "SELECT 1 WHERE 1 = 2"); err != nil || got == nil || len(got) != 0 {
			t.Errorf("no rows: got %#v, %v; want an empty slice", got, err)
		}
		for _, bad := range []string{"SELECT 'x'", "SELECT nothing"} {
			if got, err := sqldb.Select(t.Context(), db, scan, bad); err == nil {
				t.Errorf("%s: got %v, want an error", bad, got)
			}
		}
		if n := db.Stats().InUse; n != 0 {
			t.Errorf("%d connections are still in use", n)
		}
	})
}
