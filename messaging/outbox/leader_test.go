package outbox_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// The relay of one process sends what another commits, long before it would look by itself.
func TestRelayIsWokenByAnotherProcess(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	var b broker
	start(t, outbox.NewRelay(one, b.send, nil).Poll(time.Hour))
	writer := outbox.NewRelay(two, nil, nil) // does not run
	eventually(t, "the relay hears", func() bool {
		return number(t, two, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'") == 1
	})
	for i := range 3 {
		err := sqldb.InTx(t.Context(), two, func(ctx context.Context, tx *sql.Tx) error {
			sqldb.AfterCommit(ctx, writer.Wake)
			return outbox.Add(ctx, tx, message("k", i))
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is sent", b.has(i+1))
	}
}

// A leader whose lock is gone while its session lives, as behind a pooler, has read a batch and does
// not send it.
func TestRelayAsksBeforeItSends(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	var b broker
	r := outbox.NewRelay(one, b.send, nil)
	start(t, r)
	add(t, one, message("k", 0))
	r.Wake()
	eventually(t, "it leads", func() bool { return b.has(1)() && count(t, one, "kaptar_outbox") == 0 })
	beside, err := sqldb.TryLease(t.Context(), one, "beside") // on the same session
	if err != nil || beside == nil {
		t.Fatalf("TryLease = %v, %v", beside, err)
	}
	var rival *sqldb.Lease
	err = beside.Use(t.Context(), func(ctx context.Context, conn *sql.Conn) error { // the relay waits for its turn meanwhile
		if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock_all()"); err != nil {
			return err
		}
		add(t, two, message("k", 1))
		rival, err = sqldb.TryLease(ctx, two, "outbox relay")
		return err
	})
	if err != nil || rival == nil {
		t.Fatalf("the rival's lease: %v, %v", rival, err)
	}
	beside.Release()
	eventually(t, "the relay has given up its session", func() bool { r.Wake(); return one.Stats().InUse <= 1 }) // the other one listens
	if n := len(b.all()); n != 1 {
		t.Errorf("sent %d, want the 1 of before", n)
	}
	rival.Release()
	eventually(t, "it leads again", b.has(2))
}

// Two leaders, the first of them stopped in the middle of a batch for so long that its session is cut
// and another leads, as by SIGSTOP: when it goes on, it sends no further batch.
func TestRelayThatWasStopped(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	fill(t, one, 1200)
	var first, second broker
	stopped, resume := make(chan bool), make(chan bool)
	slept := false
	first.fail = func([]driver.Message) error {
		if !slept {
			slept = true
			close(stopped)
			<-resume
		}
		return nil
	}
	start(t, outbox.NewRelay(one, first.send, nil))
	<-stopped
	exec(t, two, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	start(t, outbox.NewRelay(two, second.send, nil))
	eventually(t, "the other one sends all", func() bool { return len(second.all()) == 1200 && count(t, two, "kaptar_outbox") == 0 })
	close(resume)
	add(t, two, message("k", 1))
	eventually(t, "the other one goes on", func() bool { return len(second.all()) == 1201 })
	if n := len(first.all()); n != 500 {
		t.Errorf("the one that was stopped sent %d, want the 500 it had read", n)
	}
}
