package schedule_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/schedule"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var errBoom = errors.New("boom")

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := schedule.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

// system is a database, a clock that can be set, and what ran.
type system struct {
	t   *testing.T
	db  *sql.DB
	set atomic.Int64 // the clock's distance to the real one, a time.Duration

	mu   sync.Mutex
	runs []string
	log  bytes.Buffer
}

// inBubble runs test with a fake clock, which begins at 2000-01-01 00:00:00 UTC.
func inBubble(t *testing.T, test func(s *system)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(&system{t: t, db: open(t, "sqlite::memory:")})
	})
}

func (s *system) now() time.Time { return time.Now().Add(time.Duration(s.set.Load())) }

// job notes its runs as name@time+missed, and does what each says; nil is nothing.
func (s *system) job(name, spec string, next func(time.Time) time.Time, each func(ctx context.Context, n int) error) schedule.Job {
	n := 0
	return schedule.Job{Name: name, Spec: spec, Next: next, Run: func(ctx context.Context, at time.Time, missed int) error {
		s.mu.Lock()
		s.runs = append(s.runs, fmt.Sprintf("%s@%s+%d", name, at.UTC().Format("15:04:05"), missed))
		s.mu.Unlock()
		n++
		if each == nil {
			return nil
		}
		return each(ctx, n)
	}}
}

// start runs jobs as one process does, until the function that it returns is called.
func (s *system) start(jobs ...schedule.Job) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	r := &schedule.Runner{DB: s.db, Jobs: jobs, Now: s.now, Log: slog.New(slog.NewTextHandler(&s.log, nil)), Ran: func(job string, err error) {
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.runs[len(s.runs)-1] += "!"
		}
	}}
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			s.t.Errorf("Run = %v, want nil", err)
		}
	}()
	return func() { cancel(); <-done }
}

// ran compares what ran since the last call.
func (s *system) ran(want string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.runs, " "); got != want {
		s.t.Errorf("ran %s\nwant %s", got, want)
	}
	s.runs = nil
}

// Runs take time, fail and panic; the times stay those of the schedule.
func TestEveryDoesNotDrift(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *system) {
		stop := s.start(s.job("a", "10s", schedule.Every(10*time.Second), func(_ context.Context, n int) error {
			time.Sleep(3 * time.Second)
			switch n {
			case 2:
				return errBoom
			case 3:
				panic("broken")
			case 5:
				time.Sleep(25 * time.Second) // it ends at 01:18
			}
			return nil
		}))
		time.Sleep(85 * time.Second)
		stop()
		s.ran("a@00:00:10+0 a@00:00:20+0! a@00:00:30+0! a@00:00:40+0 a@00:00:50+0 a@00:01:10+1 a@00:01:20+0")
		if text := s.log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "boom") || !strings.Contains(text, "broken") || !strings.Contains(text, "schedule_test.go") {
			t.Errorf("log = %s\nwant the error, and the panic with its stack", text)
		}
	})
}

// What was missed while nothing ran is one run that knows how many. A new schedule has missed nothing,
// nor has one with other times than before.
func TestMissedRuns(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *system) {
		cron, err := schedule.Parse("0 * * * *")
		if err != nil {
			t.Fatal(err)
		}
		jobs := func(spec string) []schedule.Job {
			return []schedule.Job{s.job("a", spec, schedule.Every(time.Minute), nil), s.job("h", "0 * * * *", cron.Next, nil)}
		}
		stop := s.start(jobs("1m")...)
		time.Sleep(90 * time.Second)
		stop()
		s.ran("a@00:01:00+0")
		time.Sleep(3*time.Hour - 5*time.Second)
		stop = s.start(jobs("1m")[:1]...)
		time.Sleep(10 * time.Second)
		stop()
		s.ran("a@03:01:00+179")
		stop = s.start(jobs("1m")[1:]...)
		time.Sleep(time.Second)
		stop()
		s.ran("h@03:00:00+2")
		time.Sleep(time.Hour)
		stop = s.start(jobs("another")[:1]...)
		time.Sleep(65 * time.Second)
		stop()
		s.ran("a@04:02:36+0")
		s.set.Store(int64(50 * 365 * 24 * time.Hour))
		stop = s.start(jobs("another")[0], s.job("h", "0 * * * *", cron.Next, nil))
		time.Sleep(time.Second)
		stop()
		s.mu.Lock()
		slices.Sort(s.runs)
		s.mu.Unlock()
		s.ran("a@04:02:36+525599 h@04:00:00+8759") // the minutes and the hours of a year, not of fifty
	})
}

// A run that was broken off by the stop is waited for, and begun again; one that ended well is not.
func TestStopWaitsForTheRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *system) {
		begin := time.Now()
		job := s.job("a", "10s", schedule.Every(10*time.Second), func(ctx context.Context, n int) error {
			if n > 2 {
				return nil
			}
			<-ctx.Done()
			time.Sleep(7 * time.Second)
			if n == 1 {
				return ctx.Err()
			}
			return nil
		})
		for range 2 {
			stop := s.start(job)
			time.Sleep(11 * time.Second)
			stop()
		}
		if d := time.Since(begin); d != 36*time.Second {
			t.Errorf("two stops after 11 s each, with runs that take 7 s to end: %v, want 36 s", d)
		}
		s.ran("a@00:00:10+0 a@00:00:10+0")
		stop := s.start(job)
		time.Sleep(5 * time.Second)
		stop()
		s.ran("a@00:00:30+1 a@00:00:40+0") // the second one began when it was due at 00:10, and ended
	})
}

// Scenario 16: a clock that is set by an hour repeats nothing and keeps nothing waiting.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *system) {
		cron, err := schedule.Parse("30 4 * * *")
		if err != nil {
			t.Fatal(err)
		}
		stop := s.start(s.job("m", "1m", schedule.Every(time.Minute), nil), s.job("d", "30 4 * * *", cron.Next, nil))
		time.Sleep(4*time.Hour + 30*time.Minute + 30*time.Second)
		synctest.Wait()
		s.mu.Lock()
		if n := len(s.runs); n != 271 { // 270 minutes and the day
			t.Errorf("ran %d times in 4:30, want 271", n)
		}
		s.runs = nil
		s.mu.Unlock()
		s.set.Store(int64(-time.Hour))
		time.Sleep(2*time.Minute + time.Second)
		s.ran("m@03:32:00+0") // not an hour later
		time.Sleep(time.Hour)
		s.mu.Lock()
		if text := strings.Join(s.runs, " "); strings.Contains(text, "d@") || len(s.runs) != 60 {
			t.Errorf("in the hour that came twice: %s\nwant 60 runs, of the minutes alone", text)
		}
		s.runs = nil
		s.mu.Unlock()
		s.set.Store(0)
		time.Sleep(2 * time.Minute)
		s.mu.Lock()
		if text := strings.Join(s.runs, " "); len(s.runs) != 3 && len(s.runs) != 2 || !strings.Contains(text, "+60") && !strings.Contains(text, "+59") {
			t.Errorf("after an hour that was not: %s\nwant one run for all of it, and those of the two minutes", text)
		}
		s.mu.Unlock()
		stop()
	})
}

// What is not text in an error is not stored, and keeps no run from being over.
func TestErrorThatIsNoText(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"sqlite": "sqlite:" + t.TempDir() + "/a.db", "postgres": servertest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, ran := open(t, url), make(chan time.Time, 100)
			ctx, cancel := context.WithCancel(t.Context())
			r := &schedule.Runner{DB: db, Now: time.Now, Log: slog.New(slog.DiscardHandler), Ran: func(string, error) {}, Jobs: []schedule.Job{{
				Name: "a", Spec: "500ms", Next: schedule.Every(500 * time.Millisecond),
				Run: func(_ context.Context, at time.Time, _ int) error { ran <- at; return errors.New("a\x00b\xff") },
			}}}
			done := make(chan struct{})
			go func() { defer close(done); _ = r.Run(ctx) }()
			if first, second := <-ran, <-ran; !second.After(first) {
				t.Errorf("the run that was due at %v is due again at %v", first, second)
			}
			cancel()
			<-done
			var text string
			if err := db.QueryRowContext(t.Context(), "SELECT error FROM kaptar_schedules").Scan(&text); err != nil || text != "a\uFFFDb\uFFFD" {
				t.Errorf("stored is %q, %v", text, err)
			}
		})
	}
}

// Of two processes on a database one runs, and the other takes over.
func TestOneLeads(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"sqlite": "sqlite:" + t.TempDir() + "/a.db", "postgres": servertest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var runs [2]atomic.Int64
			var stops [2]func()
			for i := range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				r := &schedule.Runner{DB: open(t, url), Now: time.Now, Log: slog.New(slog.DiscardHandler), Ran: func(string, error) {}, Jobs: []schedule.Job{{
					Name: "a", Spec: "20ms", Next: schedule.Every(20 * time.Millisecond),
					Run: func(context.Context, time.Time, int) error { runs[i].Add(1); return nil },
				}}}
				go func() { defer close(done); _ = r.Run(ctx) }()
				stops[i] = func() { cancel(); <-done }
				t.Cleanup(stops[i])
			}
			waittest.Until(t, "one of them runs", func() bool { return runs[0].Load()+runs[1].Load() >= 10 })
			leader := 0
			if runs[1].Load() > 0 {
				leader = 1
			}
			if n := runs[1-leader].Load(); n != 0 {
				t.Errorf("both ran: %d and %d", runs[leader].Load(), n)
			}
			stops[leader]()
			waittest.Until(t, "the other one takes over", func() bool { return runs[1-leader].Load() > 0 })
		})
	}
}
