package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/sqldb"
)

// TestEnds: each way through a saga, with what its steps do in order.
func TestEnds(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		for i, tc := range []struct {
			name string
			fail []any
			want string
		}{
			{"all work", nil, "1/hold/do, book, 1/pay/do, 1/send/do, completed  4 notes"},
			{"refused first", []any{"1/hold/do", Refuse("no")}, "1/hold/do, compensated no 0 notes"},
			{"refused in the transaction", []any{"book", Refuse("poor")}, "1/hold/do, book, 1/hold/undo, compensated poor 2 notes"},
			{"refused at the pivot", []any{"1/pay/do", fmt.Errorf("bank: %w", Refuse("no"))},
				"1/hold/do, book, 1/pay/do, revert, 1/hold/undo, compensated no 4 notes"},
			{"each fails once", []any{"1/hold/do", "a", "book", "b", "1/pay/do", "c", "1/send/do", "d", "completed  4 notes", "e"},
				"1/hold/do, 1/hold/do, book, book, 1/pay/do, 1/pay/do, 1/send/do, 1/send/do, completed  4 notes, 1/send/do, completed  4 notes"},
			{"refused after the pivot", []any{"1/send/do", Refuse("no")}, "1/hold/do, book, 1/pay/do, 1/send/do, 1/send/do, completed  4 notes"},
			{"compensation fails", []any{"1/pay/do", Refuse("no"), "revert", "a", "1/hold/undo", Refuse("b"), "compensated no 4 notes", "c"},
				"1/hold/do, book, 1/pay/do, revert, revert, 1/hold/undo, 1/hold/undo, compensated no 4 notes, 1/hold/undo, compensated no 4 notes"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := newRecord(tc.fail...)
				s := run(t, url, r.definition(), func(run *runner) { run.def.version = i })
				defer s.Stop()
				if _, err := s.db.ExecContext(t.Context(), `DELETE FROM kaptar_sagas`); err != nil {
					t.Fatal(err)
				}
				s.start(t, "1")
				status := Completed
				if strings.Contains(tc.want, "compensated") {
					status = Compensated
				}
				w := s.is(t, "1", string(status)+" ")
				if got := strings.Join(r.all(), ", "); got != tc.want {
					t.Errorf("the saga went\n%s, want\n%s", got, tc.want)
				}
				if w.Error != "" || w.due != 0 || (w.Reason == "") != (status == Completed) {
					t.Errorf("its row is %+v", w)
				}
			})
		}
	})
}

// TestPanicAndTimeout: both are errors, the state of the attempt is forgotten, and the saga goes on.
func TestPanicAndTimeout(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		var calls atomic.Int32
		s := run(t, url, Definition[transfer]{Name: "transfer", Backoff: 1e6, Steps: []Step[transfer]{{
			Name: "slow", Timeout: 20 * time.Millisecond,
			Do: func(ctx context.Context, s *transfer) error {
				s.Cents++
				switch calls.Add(1) {
				case 1:
					panic("oops")
				case 2:
					<-ctx.Done()
					return ctx.Err()
				case 3:
					<-ctx.Done() // a late answer is an answer
				}
				return nil
			},
		}}}, nil)
		s.start(t, "1")
		w := s.is(t, "1", "completed ")
		if calls.Load() != 3 || string(w.state) != `{"Cents":101,"Notes":null}` {
			t.Errorf("after %d calls the state is %s, want 3 calls and the last one's state", calls.Load(), w.state)
		}
		if !strings.Contains(s.Log(), "panic: oops") || !strings.Contains(s.Log(), "TestPanicAndTimeout") || !strings.Contains(s.Log(), "deadline exceeded") {
			t.Errorf("the log does not say why the step was done again:\n%s", s.Log())
		}
	})
}

// TestLateCommit: a Commit that takes longer than its timeout counts as failed, though it returns nil. The
// timeout is for the whole transaction, so it must be long enough for a disk that stands still.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		var calls atomic.Int32
		late := Step[transfer]{Name: "late", Timeout: 5 * time.Second, Commit: func(ctx context.Context, _ *sql.Tx, _ *transfer) error {
			if calls.Add(1) == 1 {
				<-ctx.Done()
			}
			return nil
		}}
		s := run(t, url, Definition[transfer]{Name: "transfer", Backoff: 1e6, Steps: []Step[transfer]{late}}, nil)
		s.start(t, "1")
		s.is(t, "1", "completed ")
		if log := s.Log(); calls.Load() != 2 || !strings.Contains(log, "saga waits") || strings.Contains(log, "not written down") {
			t.Errorf("after %d calls, want 2 with a failure in between, the log is\n%s", calls.Load(), log)
		}
	})
}

func TestStart(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRecord()
		s := run(t, url, r.definition(), nil)
		rolledBack := errors.New("rolled back")
		err := sqldb.InTx(t.Context(), s.db, func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(s.sagas.Start(ctx, tx, "never", transfer{}), rolledBack)
		})
		if !errors.Is(err, rolledBack) {
			t.Errorf("start: %v", err)
		}
		err = sqldb.InTx(t.Context(), s.db, func(ctx context.Context, tx *sql.Tx) error {
			for _, id := range []string{"", "a\x00", "\xff", strings.Repeat("x", 201)} {
				if err := s.sagas.Start(ctx, tx, id, transfer{}); err == nil || !strings.Contains(err.Error(), "expected 1 to 200 bytes") {
					t.Errorf("start of id %q: %v", id, err)
				}
			}
			if err := s.sagas.Start(ctx, tx, "big", transfer{Notes: []string{strings.Repeat("x", maxState)}}); err == nil {
				t.Error("a state of more than 1 MiB was taken")
			}
			if err := s.sagas.Start(ctx, tx, "1", transfer{}); err != nil {
				return err
			}
			if err := s.sagas.Start(ctx, tx, "1", transfer{Cents: 7}); !errors.Is(err, ErrExists) {
				t.Errorf("start of an id that is there: %v, want ErrExists", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.is(t, "1", "completed ")
		tx, err := s.db.BeginTx(t.Context(), nil) // around InTx: nobody wakes the runner
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.sagas.Start(t.Context(), tx, "2", transfer{}), tx.Commit()); err != nil {
			t.Fatal(err)
		}
		s.is(t, "2", "completed ")
		if got := r.all(); slices.ContainsFunc(got, func(text string) bool { return strings.HasPrefix(text, "never") }) || len(got) != 10 {
			t.Errorf("steps of what was rolled back, or of more than two sagas: %q", got)
		}
	})
}

// TestMany: more sagas than run at once all end, no more run than may, and each does its steps once.
func TestMany(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		seen, now, most := make(map[string]int), 0, 0
		def := Definition[transfer]{Name: "transfer", Concurrency: 8}
		for _, name := range []string{"a", "b", "c"} {
			def.Steps = append(def.Steps, Step[transfer]{Name: name, Do: func(ctx context.Context, s *transfer) error {
				mu.Lock()
				seen[Key(ctx)]++
				now++
				most = max(most, now)
				mu.Unlock()
				s.Cents++
				mu.Lock()
				now--
				mu.Unlock()
				return nil
			}})
		}
		s := run(t, url, def, nil)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 25 {
					s.start(t, fmt.Sprint(i*25+j))
				}
			})
		}
		wg.Wait()
		for i := range 200 {
			if w := s.is(t, fmt.Sprint(i), "completed "); !strings.Contains(string(w.state), "103") {
				t.Errorf("saga %d ended with %s", i, w.state)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if most > 8 || len(seen) != 600 {
			t.Errorf("%d ran at the same time, %d keys, want at most 8 and 600", most, len(seen))
		}
		for key, n := range seen {
			if n != 1 {
				t.Errorf("%s was done %d times", key, n)
			}
		}
	})
}

// TestTakeover: two processes on one database; when the leader stops the other one goes on.
func TestTakeover(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r, other := newRecord("1/pay/do", "away"), newRecord()
		def := r.definition()
		def.Backoff, def.MaxBackoff = time.Hour, time.Hour
		first := run(t, url, def, nil)
		first.start(t, "1")
		if w := first.is(t, "1", "running pay"); w.Attempts > 0 && w.due < time.Now().Add(time.Minute).UnixMilli() {
			t.Errorf("due in %v, want about an hour", time.Until(time.UnixMilli(w.due)))
		}
		second := run(t, url, other.definition(), nil)
		second.start(t, "2") // by the one that does not lead
		first.is(t, "2", "completed ")
		kaptartest.Eventually(t, "the failure to be written", func() error {
			if w := first.is(t, "1", "running pay"); w.Attempts != 1 {
				return fmt.Errorf("%+v", w)
			}
			return nil
		})
		if got := other.all(); len(got) != 0 {
			t.Errorf("the process without the lease has done %q", got)
		}
		first.Stop()
		if _, err := second.db.ExecContext(t.Context(), `UPDATE kaptar_sagas SET due_at = 0 WHERE id = '1'`); err != nil {
			t.Fatal(err)
		}
		second.is(t, "1", "completed ")
		if got := strings.Join(other.all(), ", "); got != "1/pay/do, 1/send/do, completed  4 notes" {
			t.Errorf("the other one went %s", got)
		}
	})
}

// TestVersions: a saga is finished by the definition that began it; one of a version that nobody
// knows waits.
func TestVersions(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		one := newRecord("1/pay/do", "away")
		def := one.definition()
		def.Backoff, def.MaxBackoff = time.Hour, time.Hour
		s := run(t, url, def, nil)
		s.start(t, "1")
		kaptartest.Eventually(t, "the failure", func() error {
			if w := s.is(t, "1", "running pay"); w.Attempts != 1 {
				return fmt.Errorf("%+v", w)
			}
			return nil
		})
		s.Stop()

		two := newRecord()
		newer := two.definition()
		newer.Version, newer.Steps = 2, slices.Delete(newer.Steps, 1, 3)
		s = run(t, url, newer, nil)
		if _, err := s.db.ExecContext(t.Context(), `UPDATE kaptar_sagas SET due_at = 0`); err != nil {
			t.Fatal(err)
		}
		s.start(t, "2")
		s.is(t, "2", "completed ")
		kaptartest.Eventually(t, "the unknown version to be told", func() error {
			if !strings.Contains(s.Log(), "this program does not know their version") {
				return errors.New(s.Log())
			}
			return nil
		})
		for _, want := range []string{
			`saga_unfinished{saga="transfer",service="bank",status="running",version="0"} 1`,
			`saga_stuck{saga="transfer",service="bank",status="running",version="2"} 0`, // what alerts ask for is there before it happens
		} {
			kaptartest.Eventually(t, "the metrics", func() error { // they are left out while the database takes longer than a second
				if body := s.Do("GET", "bank", "/metrics", "").Body; !strings.Contains(body, want) {
					return fmt.Errorf("they do not have %s:\n%s", want, body)
				}
				return nil
			})
		}
		s.Stop()

		old := newRecord()
		s = run(t, url, newer, nil, old.definition())
		s.is(t, "1", "completed ")
		if got := strings.Join(old.all(), ", "); got != "1/pay/do, 1/send/do, completed  4 notes" {
			t.Errorf("the old definition went %s", got)
		}
	})
}
