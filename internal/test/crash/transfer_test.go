package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// A transfer is the state of a saga that moves money from an account of the bank to the vault.
type transfer struct {
	ID      string `json:"id"`
	Account int64  `json:"account"`
	Amount  int64  `json:"amount"`
}

// transfers has the saga run by this process, or whichever leads. The vault refuses some at the last
// step before the way back ends.
func (b *bank) transfers(app *kaptar.App) (err error) {
	change := func(sign int64) func(context.Context, *sql.Tx, *transfer) error {
		return func(ctx context.Context, tx *sql.Tx, t *transfer) error {
			_, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = balance + $1 WHERE id = $2`, sign*t.Amount, t.Account)
			return err
		}
	}
	call := func(path string) func(context.Context, *transfer) error {
		return func(ctx context.Context, t *transfer) error { return b.call(ctx, app.Client(), path, t) }
	}
	b.sagas, err = saga.New(app, saga.Definition[transfer]{
		Name: "transfer", MaxBackoff: time.Second, Concurrency: 4,
		Steps: []saga.Step[transfer]{
			{Name: "withdraw", Commit: change(-1), Revert: change(1)},
			{Name: "deposit", Do: call("/deposit"), Undo: call("/return")},
			{Name: "approve", Do: call("/approve"), Pivot: true},
			{Name: "tell", Do: call("/tell")},
		},
		End: func(ctx context.Context, tx *sql.Tx, t *transfer, out saga.Outcome) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO ended (id, status, amount) VALUES ($1, $2, $3)`, t.ID, string(out.Status), t.Amount)
			return err
		},
	})
	return err
}

// begin starts a transfer as part of tx.
func (b *bank) begin(ctx context.Context, tx *sql.Tx, account int, amount int64) error {
	t := transfer{ID: uuid.NewString(), Account: int64(account), Amount: amount}
	return b.sagas.Start(ctx, tx, t.ID, t)
}

// call asks the vault for a step of t.
func (b *bank) call(ctx context.Context, client *http.Client, path string, t *transfer) error {
	query := url.Values{"id": {t.ID}, "key": {saga.Key(ctx)}, "amount": {strconv.FormatInt(t.Amount, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, b.set.Vault+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return saga.Refuse("the vault is full")
	}
	return fmt.Errorf("%s: %s %s", path, resp.Status, text)
}

const vaultTables = `
CREATE TABLE moves (key TEXT PRIMARY KEY, id TEXT NOT NULL, amount BIGINT NOT NULL);
`

// A vault keeps money at the other end of a transfer. It tells repetitions by their key.
type vault struct {
	set *settings
	db  *sql.DB
}

func vaultService() kaptar.Service {
	set := new(settings)
	return kaptar.Service{Name: "vault", Settings: set, Setup: func(app *kaptar.App) (err error) {
		v := &vault{set: set}
		if v.db, err = app.DB(migrations(vaultTables)); err != nil {
			return err
		}
		app.Handle("PUT /{what}", v)
		return nil
	}}
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := sqldb.InTx(r.Context(), v.db, func(ctx context.Context, tx *sql.Tx) error {
		return v.move(ctx, tx, r.PathValue("what"), r.URL.Query())
	})
	edge(v.set)
	switch {
	case errors.Is(err, errFull):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

var errFull = errors.New("full")

// move takes an amount in, gives it back or answers whether it may stay. A deposit that comes after
// its return finds its key taken.
func (v *vault) move(ctx context.Context, tx *sql.Tx, what string, query url.Values) error {
	id, key := query.Get("id"), query.Get("key")
	note := func(key, amount string) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO moves (key, id, amount) VALUES ($1, $2, `+amount+`) ON CONFLICT DO NOTHING`, key, id)
		return err
	}
	switch what {
	case "deposit":
		amount, err := strconv.ParseInt(query.Get("amount"), 10, 64)
		if err != nil {
			return err
		}
		return note(key, strconv.FormatInt(amount, 10))
	case "return":
		deposit := strings.TrimSuffix(key, "undo") + "do"
		return errors.Join(note(deposit, "0"), note(key, `-(SELECT coalesce(sum(amount), 0) FROM moves WHERE id = $2)`))
	case "approve":
		h := fnv.New32a()
		_, _ = h.Write([]byte(id))
		if h.Sum32()%5 == 0 { // the same whenever it is asked
			return errFull
		}
	}
	return note(key, "0")
}
