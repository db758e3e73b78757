package saga

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/sqldb"
)

// What the parent of a crash test tells its child.
const (
	crashURL    = "KAPTAR_SAGA_CRASH_URL"
	crashRemote = "KAPTAR_SAGA_CRASH_REMOTE"
	crashID     = "KAPTAR_SAGA_CRASH_ID"   // of the saga; "refused…" is refused at its pivot
	crashEdge   = "KAPTAR_SAGA_CRASH_EDGE" // the number of the edge at which it kills itself; 0: never
)

const opening = 1000 // cents of each account in the child's database; 100 of them go to the remote one

// A remote is another service, which knows a repetition by its key.
type remote struct {
	mu    sync.Mutex
	cents map[string]int // by saga
	keys  map[string]int // calls
}

func newRemote() *remote { return &remote{cents: make(map[string]int), keys: make(map[string]int)} }

// call has the effect of key, "name/id/step/action", the first time that it comes.
func (r *remote) call(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := strings.Split(key, "/")
	if r.keys[key]++; r.keys[key] == 1 {
		r.cents[parts[1]] += map[string]int{"pay/do": 100, "pay/undo": -100}[parts[2]+"/"+parts[3]]
	}
}

// transferOf are the steps of sagas that move money from an account in db to the remote one.
func transferOf(call func(ctx context.Context) error) Definition[string] {
	move := func(cents int) func(context.Context, *sql.Tx, *string) error {
		return func(ctx context.Context, tx *sql.Tx, id *string) error {
			_, err := tx.ExecContext(ctx, `UPDATE accounts SET cents = cents + $1 WHERE id = $2`, cents, *id)
			return err
		}
	}
	remote := func(ctx context.Context, _ *string) error { return call(ctx) }
	return Definition[string]{
		Name: "transfer", Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		Steps: []Step[string]{
			{Name: "take", Commit: move(-100), Revert: move(+100)},
			{Name: "pay", Do: remote, Undo: remote},
			{Name: "check", Pivot: true, Do: remote, Commit: func(_ context.Context, _ *sql.Tx, id *string) error {
				if strings.HasPrefix(*id, "refused") {
					return Refuse("no")
				}
				return nil
			}},
			{Name: "tell", Do: remote},
		},
		End: func(ctx context.Context, tx *sql.Tx, id *string, out Outcome) error {
			_, err := tx.ExecContext(ctx, `UPDATE accounts SET ends = ends + 1, status = $1 WHERE id = $2`, out.Status, *id)
			return err
		},
	}
}

// accounts makes the table of the accounts, with one of id if there is none.
func accounts(ctx context.Context, db *sql.DB, id string) error {
	_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, cents BIGINT NOT NULL, ends BIGINT NOT NULL, status TEXT NOT NULL)`)
	if err == nil {
		_, err = db.ExecContext(ctx, `INSERT INTO accounts VALUES ($1, $2, 0, '') ON CONFLICT (id) DO NOTHING`, id, opening)
	}
	return err
}

// check compares what a saga has done with how it must have ended.
func check(ctx context.Context, db *sql.DB, r *remote, id string) error {
	var cents, ends int
	var status, left string
	err := db.QueryRowContext(ctx, `SELECT cents, ends, a.status, s.status FROM accounts a JOIN kaptar_sagas s ON s.id = replace(a.id, '/', '.') WHERE a.id = $1`, id).Scan(&cents, &ends, &status, &left)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	want := fmt.Sprintf("%d here, %d there, ended 1 times as completed completed", opening-100, 100)
	if strings.HasPrefix(id, "refused") {
		want = fmt.Sprintf("%d here, %d there, ended 1 times as compensated compensated", opening, 0)
	}
	if got := fmt.Sprintf("%d here, %d there, ended %d times as %s %s", cents, r.cents[strings.ReplaceAll(id, "/", ".")], ends, status, left); got != want {
		return fmt.Errorf("%s: %s, want %s", id, got, want)
	}
	return nil
}

// TestCrashAtEveryEdge kills the process of a saga at each edge between two of its effects: the saga
// ends as it would have, money is conserved, and nothing in the database is done twice.
func TestCrashAtEveryEdge(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a hundred processes")
	}
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRemote()
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { r.call(req.Header.Get("Idempotency-Key")) }))
		defer server.Close()
		child := func(id string, edge int) (killed bool) {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), crashURL+"="+url, crashRemote+"="+server.URL, crashID+"="+id, crashEdge+"="+strconv.Itoa(edge))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if killed = status.Signaled() && status.Signal() == syscall.SIGKILL; err != nil && !killed {
				t.Fatalf("child of %s: %v\n%s", id, err, &out)
			}
			return killed
		}
		db, err := sqldb.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, kind := range []string{"works", "refused"} {
			edge := 1
			for ; ; edge++ {
				id := fmt.Sprint(kind, edge)
				if !child(id, edge) {
					break // it ended before it came to so many edges
				}
				if child(id, 0) {
					t.Fatal("the child was killed by somebody else")
				}
				if err := check(t.Context(), db, r, id); err != nil {
					t.Errorf("killed at edge %d: %v", edge, err)
				}
			}
			if edge < 15 {
				t.Errorf("%s: %d edges, want all of its steps'", kind, edge)
			}
			t.Logf("%s: %d edges", kind, edge-1)
		}
	})
}

// crashChild runs the saga that the environment names to its end, or kills itself at an edge.
func crashChild(url string) int {
	id, edges := os.Getenv(crashID), atomic.Int64{}
	at, err := strconv.ParseInt(os.Getenv(crashEdge), 10, 64)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	var over atomic.Bool
	service := kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
		db, err := app.DB(nil)
		if err != nil {
			return err
		}
		def := transferOf(func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv(crashRemote), nil)
			if err != nil {
				return err
			}
			req.Header.Set("Idempotency-Key", Key(ctx))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return errors.Join(err, resp.Body.Close())
		})
		sagas, err := New(app, def)
		if err != nil {
			return err
		}
		sagas.runner.hook = func(string) {
			if edges.Add(1) == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		app.Go("the test", func(ctx context.Context) error {
			defer stop()
			err := accounts(ctx, db, id)
			if err == nil {
				err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return sagas.Start(ctx, tx, id, id) })
			}
			if err != nil && !errors.Is(err, ErrExists) {
				return err
			}
			for ctx.Err() == nil && !over.Load() {
				w, err := sagas.runner.read(ctx, id)
				if err != nil {
					return err
				}
				over.Store(w.Status.over())
				steady.Sleep(ctx, 5*time.Millisecond)
			}
			return nil
		})
		return nil
	}}
	err = errors.Join(err, kaptar.Run(ctx, &kaptar.Options{
		Log: os.Stderr, Sources: config.Sources{Defaults: map[string]string{
			"database_url": url, "listen": "127.0.0.1:0", "grpc_listen": "127.0.0.1:0", "log_level": "error", "database_from": "unowned",
		}},
	}, service))
	if err != nil || !over.Load() {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// TestEveryStepMisbehaves: each function of each step fails before its effect, after it, hangs before
// it, and answers too late; all ends are right and money is conserved.
func TestEveryStepMisbehaves(t *testing.T) {
	t.Parallel()
	onEachDialect(t, func(t *testing.T, url string) {
		r := newRemote()
		var mu sync.Mutex
		done := make(map[string]bool)
		// misbehave runs f as the id asks, "works-pay/do-late": the first time that its step is done.
		misbehave := func(ctx context.Context, id string, f func() error) error {
			_, how, _ := strings.Cut(id, "-")
			step, how, _ := strings.Cut(how, "-")
			mu.Lock()
			now := strings.HasSuffix(Key(ctx), "/"+step) && !done[id]
			done[id] = done[id] || now
			mu.Unlock()
			if !now {
				return f()
			}
			switch how {
			case "hang":
				<-ctx.Done()
				return ctx.Err()
			case "late":
				err := f()
				<-ctx.Done()
				return err
			case "lost":
				return errors.Join(f(), errors.New("the answer was lost"))
			}
			return errors.New("it failed")
		}
		def := transferOf(func(ctx context.Context) error { r.call(Key(ctx)); return nil })
		for i := range def.Steps {
			s := &def.Steps[i]
			s.Timeout = time.Second // of its transaction too
			for _, call := range []*func(context.Context, *string) error{&s.Do, &s.Undo} {
				if f := *call; f != nil {
					*call = func(ctx context.Context, id *string) error {
						return misbehave(ctx, *id, func() error { return f(ctx, id) })
					}
				}
			}
			for _, effect := range []*func(context.Context, *sql.Tx, *string) error{&s.Commit, &s.Revert} {
				if f := *effect; f != nil {
					*effect = func(ctx context.Context, tx *sql.Tx, id *string) error {
						return misbehave(ctx, *id, func() error { return f(ctx, tx, id) })
					}
				}
			}
		}
		var sagas *Sagas[string]
		var db *sql.DB
		kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.bank.database_url": url}}, kaptar.Service{
			Name: "bank", Setup: func(app *kaptar.App) (err error) {
				if db, err = app.DB(nil); err == nil {
					sagas, err = New(app, def)
				}
				return err
			},
		})
		ids := []string{"works", "refused"}
		for _, how := range []string{"fail", "lost", "hang", "late"} {
			for _, step := range []string{"take/do", "pay/do", "check/do", "tell/do"} {
				ids = append(ids, "works-"+step+"-"+how)
			}
			for _, step := range []string{"take/do", "pay/do", "check/do", "pay/undo", "take/undo"} {
				ids = append(ids, "refused-"+step+"-"+how)
			}
		}
		for _, id := range ids {
			err := accounts(t.Context(), db, id)
			if err == nil {
				err = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
					return sagas.Start(ctx, tx, strings.ReplaceAll(id, "/", "."), id)
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		kaptartest.Eventually(t, "all sagas to end", func() error {
			var n int
			err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM kaptar_sagas WHERE due_at IS NOT NULL`).Scan(&n)
			if n > 0 {
				err = fmt.Errorf("%d of %d have not", n, len(ids))
			}
			return err
		})
		for _, id := range ids {
			if err := check(t.Context(), db, r, id); err != nil {
				t.Error(err)
			}
			if strings.Contains(id, "-") && !done[id] {
				t.Errorf("%s never misbehaved", id)
			}
		}
	})
}
