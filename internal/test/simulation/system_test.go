package simulation

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing/fstest"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	accounts = 4
	deposit  = 1000 // in each account at first
	events   = 24   // in all
	keys     = 4    // of each topic
	sagas    = 6

	orderedTopic = "sim.moved.v1"
	plainTopic   = "sim.noted.v1"
)

// An entry is the data of all events.
type entry struct {
	ID     string `json:"id"`
	Amount int64  `json:"amount"`
	Poison bool   `json:"poison,omitempty"`
}

// A transfer is the state of a saga that moves money from an account to the vault.
type transfer struct {
	ID      string `json:"id"`
	Account int64  `json:"account"`
	Amount  int64  `json:"amount"`
}

// A world is what outlives the instances of a run.
type world struct {
	*kaptartest.Sim

	mu     sync.Mutex
	mended bool            // the handler takes what it called poison, and an operator replays
	vault  map[string]bool // keys of deposits and returns that have come
	moved  map[string]int64
}

func migrations(text string) fs.FS {
	return fstest.MapFS{"sqlite/001_tables.sql": {Data: []byte("-- +goose Up\n" + text)}}
}

const bankTables = `
CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL);
INSERT INTO accounts (id, balance) VALUES (0, 1000), (1, 1000), (2, 1000), (3, 1000);
CREATE TABLE committed (n INTEGER PRIMARY KEY, id TEXT NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, seq BIGINT, amount BIGINT NOT NULL, poison BOOLEAN NOT NULL);
CREATE TABLE ended (id TEXT PRIMARY KEY, status TEXT NOT NULL, amount BIGINT NOT NULL);
`

// bank publishes events and runs sagas.
func (w *world) bank() kaptar.Service {
	return kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
		db, err := app.DB(migrations(bankTables))
		if err != nil {
			return err
		}
		ordered, err1 := messaging.NewPublisher(app, messaging.Topic[entry]{Name: orderedTopic, Ordered: true})
		plain, err2 := messaging.NewPublisher(app, messaging.Topic[entry]{Name: plainTopic})
		transfers, err3 := saga.New(app, w.definition())
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		app.Go("writer", func(ctx context.Context) error {
			for n := 0; n < events && ctx.Err() == nil; {
				err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
					if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM committed`).Scan(&n); err != nil || n == events {
						return err
					}
					p, topic := ordered, orderedTopic
					if n%3 == 2 {
						p, topic = plain, plainTopic
					}
					return w.write(ctx, tx, p, topic, n, transfers)
				})
				_ = err // it is tried again
				steady.Sleep(ctx, time.Duration(w.Seed()%7)*100*time.Millisecond+time.Millisecond)
			}
			return nil
		})
		return nil
	}}
}

// write is one transaction of the bank's.
func (w *world) write(ctx context.Context, tx *sql.Tx, p *messaging.Publisher[entry], topic string, n int, transfers *saga.Sagas[transfer]) error {
	key := fmt.Sprintf("k%d", (n*7+w.Seed())%keys)
	e := entry{ID: fmt.Sprintf("e%d", n), Amount: int64(n + 1), Poison: (n+w.Seed())%11 == 0}
	if err := p.Publish(ctx, tx, key, e); err != nil {
		return err
	}
	if n%(events/sagas) == 0 {
		t := transfer{ID: fmt.Sprintf("s%d", n), Account: int64(n % accounts), Amount: int64(10 + n)}
		if err := transfers.Start(ctx, tx, t.ID, t); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO committed (n, id, topic, key, seq, amount, poison) VALUES ($1, $2, $3, $4,
		(SELECT seq FROM kaptar_sequences WHERE topic = $3 AND key = $4), $5, $6)`, n, e.ID, topic, key, e.Amount, e.Poison)
	if err == nil && w.Strikes(0.1, "rolled back: "+e.ID) {
		err = errors.New("the transaction is rolled back")
	}
	return err
}

// definition is that of the sagas. The vault refuses some at the pivot.
func (w *world) definition() saga.Definition[transfer] {
	change := func(sign int64) func(context.Context, *sql.Tx, *transfer) error {
		return func(ctx context.Context, tx *sql.Tx, t *transfer) error {
			_, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = balance + $1 WHERE id = $2`, sign*t.Amount, t.Account)
			return err
		}
	}
	call := func(sign int64, refuses bool) func(context.Context, *transfer) error {
		return func(ctx context.Context, t *transfer) error { return w.call(ctx, t, sign, refuses) }
	}
	return saga.Definition[transfer]{
		Name: "transfer", MaxBackoff: time.Second,
		Steps: []saga.Step[transfer]{
			{Name: "withdraw", Commit: change(-1), Revert: change(1)},
			{Name: "deposit", Do: call(1, false), Undo: call(-1, false)},
			{Name: "approve", Do: call(0, true), Pivot: true},
			{Name: "tell", Do: call(0, false)},
		},
		End: func(ctx context.Context, tx *sql.Tx, t *transfer, out saga.Outcome) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO ended (id, status, amount) VALUES ($1, $2, $3)`, t.ID, string(out.Status), t.Amount)
			return err
		},
	}
}

// call is one of the vault, which tells repetitions by their key. A deposit may have come when the
// answer is an error.
func (w *world) call(ctx context.Context, t *transfer, sign int64, refuses bool) error {
	key := saga.Key(ctx)
	if w.Strikes(0.1, "call refused: "+key) {
		return errors.New("the vault is away")
	}
	if refuses && (t.Amount+int64(w.Seed()))%3 == 0 {
		return saga.Refuse("the vault is full")
	}
	w.mu.Lock()
	if !w.vault[key] {
		w.vault[key] = true
		w.moved[t.ID] += sign * t.Amount
	}
	w.mu.Unlock()
	if w.Strikes(0.1, "call answers with an error: "+key) {
		return errors.New("the vault's answer is lost")
	}
	return nil
}

const ledgerTables = `
CREATE TABLE effects (pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, amount BIGINT NOT NULL);
CREATE TABLE totals (key TEXT PRIMARY KEY, total BIGINT NOT NULL);
`

// ledger applies events.
func (w *world) ledger() kaptar.Service {
	return kaptar.Service{Name: "ledger", Setup: func(app *kaptar.App) error {
		db, err := app.DB(migrations(ledgerTables))
		if err != nil {
			return err
		}
		for _, topic := range []messaging.Topic[entry]{{Name: orderedTopic, Ordered: true}, {Name: plainTopic}} {
			err := messaging.Subscribe(app, topic, func(ctx context.Context, tx *sql.Tx, e messaging.Event[entry]) error {
				return w.apply(ctx, tx, topic.Name, e)
			}, &messaging.SubscribeOptions{Tries: 2, Retries: 20})
			if err != nil {
				return err
			}
		}
		app.Go("operator", func(ctx context.Context) error {
			for steady.Sleep(ctx, 2*time.Second) {
				if w.isMended() {
					_ = replay(ctx, db) // it is tried again
				}
			}
			return nil
		})
		return nil
	}}
}

func (w *world) isMended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mended
}

func (w *world) apply(ctx context.Context, tx *sql.Tx, topic string, e messaging.Event[entry]) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO effects (id, topic, key, amount) VALUES ($1, $2, $3, $4)`, e.Data.ID, topic, e.Key, e.Data.Amount); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO totals (key, total) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET total = total + excluded.total`, e.Key, e.Data.Amount); err != nil {
		return err
	}
	switch {
	case e.Data.Poison && (topic == plainTopic || !w.isMended()):
		return messaging.Permanent(errors.New("poison"))
	case w.Strikes(0.3, "handler fails: "+e.Data.ID):
		return errors.New("not now")
	}
	return nil
}

// replay is what an operator does about the dead letters of the ordered topic when the handler is
// mended.
func replay(ctx context.Context, db *sql.DB) error {
	dead, err := outbox.DeadLetters(ctx, db, &outbox.Filter{State: outbox.Dead, Topic: orderedTopic})
	for i := range dead {
		err = errors.Join(err, sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			return outbox.ReplayDeadLetter(ctx, tx, dead[i].ID)
		}))
	}
	return err
}
