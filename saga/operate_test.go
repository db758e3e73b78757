package saga

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/sqldb"
)

// TestCancel: a saga that is cancelled while its first step is under way does that step, and then
// takes it back; past the pivot it is refused.
func TestCancel(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRecord("2/send/do", "away")
		def := r.definition()
		def.MaxBackoff, def.Backoff = time.Hour, time.Hour
		reached, answer := make(chan bool, 1), make(chan bool)
		hold := def.Steps[0].Do
		def.Steps[0].Do = func(ctx context.Context, s *transfer) error {
			if Key(ctx) == "transfer/1/hold/do" {
				reached <- true
				<-answer
			}
			return hold(ctx, s)
		}
		s := run(t, url, def, nil)
		s.start(t, "1")
		<-reached
		if err := Cancel(t.Context(), s.app, "transfer", "1", "a test"); err != nil {
			t.Fatal(err)
		}
		if err := Cancel(t.Context(), s.app, "transfer", "1", "again"); err == nil || !strings.HasSuffix(err.Error(), "it is being taken back already") {
			t.Errorf("cancel of one that is being taken back: %v", err)
		}
		close(answer) // of a step of a saga that has moved on
		w := s.is(t, "1", "compensated ")
		if got, want := strings.Join(r.all(), ", "), "1/hold/do, 1/hold/do, 1/hold/undo, compensated a test 2 notes"; got != want || w.Reason != "a test" {
			t.Errorf("the saga went %s because of %q, want %s", got, w.Reason, want)
		}
		s.start(t, "2")
		kaptartest.Eventually(t, "the failure after the pivot", func() error {
			if w := s.is(t, "2", "running send"); w.Attempts != 1 {
				return fmt.Errorf("%+v", w)
			}
			return nil
		})
		for id, want := range map[string]string{"1": "it is over", "2": "it is past its pivot, so it can only go on", "3": "none of that name and id: see the command sagas list"} {
			if err := Cancel(t.Context(), s.app, "transfer", id, "a test"); err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("cancel of %s: %v, want that %s", id, err, want)
			}
		}
		if err := Retry(t.Context(), s.app, "transfer", "2"); err != nil {
			t.Fatal(err)
		}
		s.is(t, "2", "completed ")
		if err := Retry(t.Context(), s.app, "transfer", "2"); err == nil || !strings.HasSuffix(err.Error(), "it is over") {
			t.Errorf("retry of one that is over: %v", err)
		}
	})
}

// TestLateAnswers: what comes of a step of a saga that is over, or has moved on, changes nothing, in
// the database either.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRecord("1/send/do", "away")
		def := r.definition()
		def.MaxBackoff, def.Backoff = time.Hour, time.Hour
		s := run(t, url, def, nil)
		s.start(t, "1")
		kaptartest.Eventually(t, "the failure", func() error {
			if w := s.is(t, "1", "running send"); w.Attempts != 1 {
				return fmt.Errorf("%+v", w)
			}
			return nil
		})
		old := s.is(t, "1", "running send") // as another process has it
		if err := Retry(t.Context(), s.app, "transfer", "1"); err != nil {
			t.Fatal(err)
		}
		now := s.is(t, "1", "completed ")
		for _, stale := range []row{old, {id: "1", position: position{Status: Running, Step: "hold"}, state: old.state}, {id: "1", position: position{Status: Running, Step: "book"}, state: old.state, revision: old.revision}} {
			if _, err := s.sagas.runner.step(t.Context(), &stale); !errors.Is(err, errMoved) {
				t.Errorf("the late answer of %s: %v, want errMoved", stale.Step, err)
			}
		}
		if after := s.is(t, "1", "completed "); after.revision != now.revision || string(after.state) != string(now.state) {
			t.Errorf("late answers made %+v of %+v", after, now)
		}
	})
}

// TestStaleLook: a saga that has stopped running since a look at the table began is not begun as it
// was read then.
func TestStaleLook(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		s := run(t, url, newRecord().definition(), nil)
		s.start(t, "1")
		s.is(t, "1", "completed ")
		r := s.sagas.runner
		s.Stop()
		db, err := sqldb.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), `UPDATE kaptar_sagas SET due_at = 1, status = 'running'`); err != nil {
			t.Fatal(err)
		}
		lease, err := sqldb.TryLease(t.Context(), db, "test")
		if err != nil || lease == nil {
			t.Fatal(lease, err)
		}
		defer lease.Release()
		for _, during := range []bool{false, true} {
			r.ended = nil
			due, _, err := r.look(t.Context(), func(ctx context.Context, limit int) ([]row, error) {
				rows, err := r.due(ctx, lease, limit)
				if during {
					r.end("1")
				}
				return rows, err
			})
			if want := map[bool]int{false: 1, true: 0}[during]; err != nil || len(due) != want {
				t.Errorf("ended during the look %v: %d are due, %v, want %d", during, len(due), err, want)
			}
		}
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		s := run(t, url, newRecord("3/hold/do", After(time.Hour, errors.New("away"))).definition(), nil)
		for _, id := range []string{"1", "2", "3"} {
			s.start(t, id)
		}
		s.is(t, "1", "completed ")
		s.is(t, "2", "completed ")
		if _, err := s.db.ExecContext(t.Context(), `UPDATE kaptar_sagas SET ended_at = 1 WHERE id = '1'`); err != nil {
			t.Fatal(err)
		}
		g := registryOf(s.app)
		if err := g.purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		left, err := sqldb.Select(t.Context(), s.db, func(r sqldb.Row) (id string, err error) { err = r.Scan(&id); return id, err }, `SELECT id FROM kaptar_sagas ORDER BY id`)
		if err != nil || strings.Join(left, " ") != "2 3" {
			t.Errorf("after the purge %q are there, %v, want 2 and 3", left, err)
		}
	})
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	do := func(context.Context, *int) error { return nil }
	step := Step[int]{Name: "a", Do: do}
	pivot := Step[int]{Name: "p", Do: do, Pivot: true}
	for want, def := range map[string]Definition[int]{
		"name: expected lower-case":           {Name: "A", Steps: []Step[int]{step}},
		"no steps: expected one":              {Name: "a"},
		"expected 0 or more":                  {Name: "a", Version: -1, Steps: []Step[int]{step}},
		`step "a": timeout -1ns: expected 0`:  {Name: "a", Steps: []Step[int]{{Name: "a", Do: do, Timeout: -1}}},
		"expected Do or Commit":               {Name: "a", Steps: []Step[int]{{Name: "a"}}},
		`step "a": expected one step of that`: {Name: "a", Steps: []Step[int]{step, step}},
		"expected one pivot":                  {Name: "a", Steps: []Step[int]{pivot, {Name: "q", Do: do, Pivot: true}}},
		`step "p": expected neither Undo`:     {Name: "a", Steps: []Step[int]{{Name: "p", Do: do, Pivot: true, Undo: do}}},
		`step "a": expected neither Undo`:     {Name: "a", Steps: []Step[int]{pivot, {Name: "a", Do: do, Undo: do}}},
		`step "": expected a name`:            {Name: "a", Steps: []Step[int]{{Do: do}}},
	} {
		if _, err := define(&def); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("define: %v, want %q", err, want)
		}
	}
}

// TestCommand: what an operator types, beside a service that runs.
func TestCommand(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRecord("2/hold/do", After(time.Hour, errors.New("away")), "3/hold/do", After(time.Hour, errors.New("away")))
		s := run(t, url, r.definition(), nil)
		for _, id := range []string{"1", "2", "3"} {
			s.start(t, id)
		}
		s.is(t, "1", "completed ")
		for _, id := range []string{"2", "3"} {
			kaptartest.Eventually(t, "the failure", func() error {
				if w := s.is(t, id, "running hold"); w.Attempts != 1 {
					return fmt.Errorf("%+v", w)
				}
				return nil
			})
		}
		service := kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
			_, err := New(app, newRecord().definition())
			return err
		}}
		other := kaptar.Service{Name: "other", Listen: ":0", GRPCListen: ":0", Setup: func(*kaptar.App) error { return nil }}
		for _, tc := range []struct {
			args string
			code int
			want []string
		}{
			{"list", 0, []string{"SERVICE   SAGA       ID", "bank      transfer   2    0         running   hold   1", "away (again in 1h0m0s)"}},
			{"list --status completed bank", 0, []string{"bank      transfer   1    0         completed"}},
			{"list other", 0, []string{"There is nothing to list.\n"}},
			{"show nobody transfer 2", 2, []string{`there is no service "nobody": expected one of bank, other`}},
			{"list --json other", 0, []string{`"sagas": []`}},
			{"list --stuck --json", 0, []string{`"sagas": []`}},
			{"list --status done", 2, []string{"expected one of running"}},
			{"list --limit 0", 2, []string{"expected 1 or more"}},
			{"show bank transfer 2", 0, []string{`"status": "running"`, `"Cents": 100`}},
			{"show bank transfer 9", 1, []string{": saga: transfer 9: there is none of that name and id"}},
			{"show other transfer 2", 1, []string{"there is none of that name and id"}},
			{"cancel bank transfer 1", 2, []string{"--why is missing"}},
			{"cancel bank transfer", 2, []string{"expected SERVICE and SAGA and ID…, got 2"}},
			{"cancel bank transfer 1 2 --why test", 1, []string{"transfer 2: is being taken back", "transfer 1: it is over"}},
			{"retry bank transfer 3", 0, []string{"transfer 3: tried now"}},
			{"retri", 2, []string{"did you mean retry?"}},
			{"--help", 0, []string{"Exit codes"}},
		} {
			var out bytes.Buffer
			program := &kaptar.Program{Services: []kaptar.Service{service, other}, Commands: []kaptar.Command{Command()}}
			args := append(append([]string{"sagas"}, strings.Fields(tc.args)...), "--set", "services.bank.database_url="+url)
			code := program.Main(args, &out, &out)
			if code != tc.code {
				t.Errorf("sagas %s = %d, want %d:\n%s", tc.args, code, tc.code, &out)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("sagas %s: %q is missing in\n%s", tc.args, want, &out)
				}
			}
		}
		s.is(t, "3", "completed ")
		if w := s.is(t, "2", "compensated "); w.Reason != "cancelled: test" {
			t.Errorf("2 was compensated because of %q", w.Reason)
		}
	})
}

// TestTraceAndMetrics: each step is a span in the trace of whoever started the saga.
func TestTraceAndMetrics(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		s := run(t, url, newRecord("1/pay/do", Refuse("")).definition(), nil)
		ctx, span := s.app.Tracer().Start(t.Context(), "request")
		err := sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error { return s.sagas.Start(ctx, tx, "1", transfer{}) })
		if err != nil {
			t.Fatal(err)
		}
		span.End()
		s.is(t, "1", "compensated ")
		want := []string{"transfer hold", "transfer book", "transfer pay", "transfer undo book", "transfer undo hold"}
		kaptartest.Eventually(t, "the spans", func() error {
			var got []string
			for _, sp := range s.Spans() {
				if sp.SpanContext().TraceID() == span.SpanContext().TraceID() && strings.HasPrefix(sp.Name(), "transfer ") {
					got = append(got, sp.Name())
				}
			}
			if strings.Join(got, ",") != strings.Join(want, ",") {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
		body := s.Do("GET", "bank", "/metrics", "").Body
		for _, want := range []string{
			`saga_steps_total{action="do",result="ok",saga="transfer",service="bank",step="book"} 1`,
			`saga_steps_total{action="do",result="refused",saga="transfer",service="bank",step="pay"} 1`,
			`saga_steps_total{action="undo",result="ok",saga="transfer",service="bank",step="hold"} 1`,
			`saga_ended_total{saga="transfer",service="bank",status="compensated"} 1`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s is missing in\n%s", want, body)
			}
		}
	})
}

// TestLateStep: a function that goes on after its timeout is told to the log while it does.
func TestLateStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var log bytes.Buffer
		r := &runner{def: &definition{}, db: db, dialect: sqldb.SQLite, log: slog.New(slog.NewTextHandler(&log, nil))}
		w := &row{id: "7", position: position{Status: Compensating, Step: "pay"}}
		for _, took := range []time.Duration{0, 10900 * time.Millisecond, time.Hour} {
			slow := task{
				timeout: 10 * time.Second,
				call:    func(context.Context, []byte) ([]byte, error) { time.Sleep(took); return nil, nil },
				effect: func(context.Context, *sql.Tx, []byte) ([]byte, error) {
					time.Sleep(took)
					return nil, errors.New("late")
				},
			}
			for what, run := range map[string]func(){
				"call": func() { r.call(t.Context(), w, slow) }, "commit": func() { _ = r.commit(t.Context(), w, w, slow) },
			} {
				log.Reset()
				go run()
				time.Sleep(11 * time.Second)
				synctest.Wait()
				text := log.String()
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				want := 0
				if took == time.Hour {
					want = 1
				}
				if strings.Count(text, `level=WARN msg="step of a saga goes on after its timeout`) != want || text != log.String() ||
					want == 1 && !strings.Contains(text, "id=7 step=pay action=undo timeout=10s") {
					t.Errorf("%s that takes %v: after 11 s the log is %q, and at its end %q", what, took, text, log.String())
				}
			}
		}
	})
}

// TestWriteTimeout: when the database does not answer, moves that were stored together are told so after
// one timeout. Trying each alone would keep a process that stops for minutes.
func TestWriteTimeout(t *testing.T) {
	t.Parallel()
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	synctest.Test(t, func(t *testing.T) {
		statements := 0
		r := &runner{def: &definition{}, db: db, dialect: sqldb.SQLite, hook: func(edge string) {
			if edge == "before write" {
				statements++
				time.Sleep(2 * writeTimeout)
			}
		}}
		moves := []*move{{ID: "a", done: make(chan error, 1)}, {ID: "b", done: make(chan error, 1)}, {ID: "c", done: make(chan error, 1)}}
		r.writeAll(t.Context(), moves)
		for _, m := range moves {
			if err := <-m.done; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("move %s: %v, want a deadline that passed", m.ID, err)
			}
		}
		if statements != 1 {
			t.Errorf("%d statements were tried, want 1", statements)
		}
	})
}
