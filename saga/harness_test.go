package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/sqldb"
)

// onEachDialect runs test with the URL of an empty database.
func onEachDialect(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, servertest.Database(t))
	})
}

// transfer is the state of the sagas of most tests.
type transfer struct {
	Cents int
	Notes []string
}

// A shop runs sagas of transfers.
type shop struct {
	*kaptartest.System
	app   *kaptar.App
	db    *sql.DB
	sagas *Sagas[transfer]
}

// run starts a service with sagas of def, and more, on the database. ready is called before anything
// runs.
func run(t *testing.T, url string, def Definition[transfer], ready func(*runner), more ...Definition[transfer]) *shop {
	t.Helper()
	s := new(shop)
	service := kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) (err error) {
		s.app = app
		if s.db, err = app.DB(nil); err != nil {
			return err
		}
		if s.sagas, err = New(app, def); err != nil {
			return err
		}
		if ready != nil {
			ready(s.sagas.runner)
		}
		for _, d := range more {
			if _, err := New(app, d); err != nil {
				return err
			}
		}
		return nil
	}}
	s.System = kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.bank.database_url": url}}, service)
	return s
}

func (s *shop) start(t *testing.T, id string) {
	t.Helper()
	err := sqldb.InTx(t.Context(), s.db, func(ctx context.Context, tx *sql.Tx) error {
		return s.sagas.Start(ctx, tx, id, transfer{Cents: 100})
	})
	if err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
}

// is waits until the saga is as want says: "status step".
func (s *shop) is(t *testing.T, id, want string) row {
	t.Helper()
	var w row
	kaptartest.Eventually(t, fmt.Sprintf("saga %s to be %s", id, want), func() (err error) {
		if w, err = scan(s.db.QueryRowContext(t.Context(), `SELECT `+columns+` FROM kaptar_sagas WHERE id = $1`, id)); err != nil {
			return err
		}
		if got := string(w.Status) + " " + w.Step; got != want {
			return fmt.Errorf("it is %s, %d attempts, %s %s", got, w.Attempts, w.Reason, w.Error)
		}
		return nil
	})
	return w
}

// A record is what steps have done, in order.
type record struct {
	mu    sync.Mutex
	texts []string
	fail  map[string]error // by text, once each
}

func (r *record) add(text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, text)
	err := r.fail[text]
	delete(r.fail, text)
	return err
}

func (r *record) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.texts)
}

// do is a Do or Undo that records its key without the name.
func (r *record) do() func(context.Context, *transfer) error {
	return func(ctx context.Context, s *transfer) error {
		err := r.add(Key(ctx)[len("transfer/"):])
		s.Notes = append(s.Notes, Key(ctx))
		return err
	}
}

// in is a Commit or Revert that does so.
func (r *record) in(what string) func(context.Context, *sql.Tx, *transfer) error {
	return func(ctx context.Context, _ *sql.Tx, s *transfer) error {
		s.Notes = append(s.Notes, what)
		return r.add(what)
	}
}

// steps are one of each kind: hold (do, undo), book (commit, revert), pay (pivot), send (do).
func (r *record) definition() Definition[transfer] {
	return Definition[transfer]{
		Name: "transfer", Backoff: 1e6, MaxBackoff: 1e7,
		Steps: []Step[transfer]{
			{Name: "hold", Do: r.do(), Undo: r.do()},
			{Name: "book", Commit: r.in("book"), Revert: r.in("revert")},
			{Name: "pay", Do: r.do(), Pivot: true},
			{Name: "send", Do: r.do()},
		},
		End: func(_ context.Context, _ *sql.Tx, s *transfer, out Outcome) error {
			return r.add(fmt.Sprintf("%s %s %d notes", out.Status, out.Reason, len(s.Notes)))
		},
	}
}

func newRecord(fail ...any) *record {
	r := &record{fail: make(map[string]error)}
	for i := 0; i < len(fail); i += 2 {
		err, ok := fail[i+1].(error)
		if !ok {
			err = errors.New(fail[i+1].(string))
		}
		r.fail[fail[i].(string)] = err
	}
	return r
}
