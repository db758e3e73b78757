package sqldb_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

// TestClaim: of several that want a new database at once one gets it, for good, and the others are told whose it is.
func TestClaim(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		names := []string{"a-service", "b-service", "c-service", "d-service"}
		errs := make([]error, len(names))
		var wg sync.WaitGroup
		for i, name := range names {
			db := open(t, url)
			wg.Go(func() { errs[i] = sqldb.Claim(t.Context(), db, name) })
		}
		wg.Wait()
		owner := ""
		for i, err := range errs {
			if err == nil {
				owner += names[i]
			}
		}
		db := open(t, url)
		for i, name := range names {
			first, again := errs[i], sqldb.Claim(t.Context(), db, name)
			if name == owner {
				if again != nil {
					t.Errorf("Claim by its owner again = %v, want nil", again)
				}
				continue
			}
			for _, err := range []error{first, again} {
				if !errors.Is(err, sqldb.ErrOwned) || !strings.Contains(err.Error(), owner) {
					t.Errorf("Claim for %s = %v, want ErrOwned and the name of %q", name, err, owner)
				}
			}
		}
	})
}
