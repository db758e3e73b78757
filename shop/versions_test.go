package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

func TestMigrationsLeaveRunningVersionsAlone(t *testing.T) {
	t.Parallel()
	services, err := filepath.Glob("*/migrations")
	if err != nil || len(services) < 6 {
		t.Fatalf("migrations of %q, %v; want those of six services at least", services, err)
	}
	for _, dir := range services {
		if err := sqldb.CheckMigrations(os.DirFS(dir)); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
