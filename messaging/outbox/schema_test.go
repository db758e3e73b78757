package outbox

import (
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

func TestMigrationsLeaveRunningVersionsAlone(t *testing.T) {
	t.Parallel()
	if err := sqldb.CheckMigrations(migrations); err != nil {
		t.Error(err)
	}
}
