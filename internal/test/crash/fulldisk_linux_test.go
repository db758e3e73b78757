package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk: while the disk of a consumer's database is full, neither effects nor dead letters can be
// written, so nothing may be acknowledged. When there is room the consumer goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := small(t, 16)
	s := openSite(t, shape{open: (*site).sqliteNATS}, 1, nil)
	s.databases["ledger"] = "sqlite:" + filepath.Join(dir, "ledger.db")
	ledger := s.run("ledger", "ledger", nil)
	s.run("writer", "bank", map[string]string{"writers": "2"})
	b := s.books(false)
	s.warm(b)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("16 MB more on a disk of 16 MB: got %v, want no space", err)
	}
	const effects, poison = `SELECT count(*) FROM effects`, `SELECT count(*) FROM committed WHERE poison = 1`
	// Room that SQLite has already is used first.
	for before, begun := int64(-1), time.Now(); before != count(t, b.ledger, effects) || !strings.Contains(ledger.log.String(), "full"); {
		if time.Since(begun) > liveness {
			t.Fatalf("events are handled %v after the disk was full", liveness)
		}
		before = count(t, b.ledger, effects)
		<-time.After(3 * time.Second)
	}
	for more := count(t, b.bank, poison) + 1; count(t, b.bank, poison) < more; <-time.After(50 * time.Millisecond) { // which is a dead letter
	}
	begun := time.Now()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.halt()
	s.finish(b, liveness)
	s.report(s.record(b), begun, begun)
}
