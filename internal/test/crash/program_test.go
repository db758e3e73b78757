package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/kafka"
	_ "github.com/kaptar/kaptar/drivers/nats"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/rabbitmq"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// asProgram makes this test binary the program whose processes are killed.
const asProgram = "KAPTAR_TEST_CRASH_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		if os.Args[1] == "--data-dir" {
			local.Main(bankService(), ledgerService())
		}
		program := &kaptar.Program{Services: []kaptar.Service{bankService(), ledgerService(), vaultService()}, Commands: messaging.Commands()}
		os.Exit(program.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	servertest.Main(m)
}

const (
	logTopic  = "crash.log.v1"  // ordered, with history where the broker keeps one
	taskTopic = "crash.task.v1" // ordered, a work queue
	noteTopic = "crash.note.v1" // without order

	keys     = 40 // of each topic
	accounts = 20
	deposit  = 1000 // in each account at first

	haltFile     = "halt"       // in the folder of a site: no more events, no more kills from inside
	deliveryFile = "deliveries" // a byte for each delivery that a consumer has begun
	handledFile  = "handled"    // a byte for each call of a handler
)

// An entry is the data of all events.
type entry struct {
	ID     string `json:"id"`
	Amount int64  `json:"amount"`
	// Until is when the handler stops to fail, in milliseconds; 0: it does not fail. Poison has it
	// fail for good.
	Until  int64 `json:"until,omitempty"`
	Poison bool  `json:"poison,omitempty"`
}

// settings are those of all services.
type settings struct {
	Dir     string        `config:"dir" help:"the site's folder"`
	Seed    int           `config:"seed" help:"of what is random"`
	Broken  string        `config:"broken" help:"the promise that is broken on purpose"`
	Writers int           `config:"writers" default:"0" help:"transactions at a time"`
	Pause   time.Duration `config:"pause" default:"20ms" help:"between two of a writer"`
	Edge    int           `config:"edge" default:"0" help:"of so many handlers one kills its process at an edge; 0: none"`
	Vault   string        `config:"vault" help:"URL of the vault"`
	Member  string        `config:"member" help:"name of this process"`
}

func (s *settings) topic(name string) messaging.Topic[entry] {
	return messaging.Topic[entry]{Name: name, Ordered: name != noteTopic && s.Broken != noOrder}
}

// halted reports whether the run is over.
func (s *settings) halted() bool {
	_, err := os.Stat(filepath.Join(s.Dir, haltFile))
	return err == nil
}

// migrations has one statement list for both dialects.
func migrations(text string) fs.FS {
	postgres := strings.ReplaceAll(text, "INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
	return fstest.MapFS{
		"sqlite/001_tables.sql":   {Data: []byte("-- +goose Up\n" + text)},
		"postgres/001_tables.sql": {Data: []byte("-- +goose Up\n" + postgres)},
	}
}

const bankTables = `
CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE TABLE committed (
    id TEXT PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL, seq BIGINT, amount BIGINT NOT NULL, poison BIGINT NOT NULL,
    UNIQUE (topic, key, seq)
);
CREATE TABLE ended (id TEXT PRIMARY KEY, status TEXT NOT NULL, amount BIGINT NOT NULL);
`

// A bank moves money between accounts and tells of it.
type bank struct {
	set    *settings
	db     *sql.DB
	topics map[string]*messaging.Publisher[entry]
	sagas  *saga.Sagas[transfer]
}

func bankService() kaptar.Service {
	set := new(settings)
	return kaptar.Service{Name: "bank", Listen: "127.0.0.1:0", Settings: set, Setup: func(app *kaptar.App) (err error) {
		b := &bank{set: set, topics: map[string]*messaging.Publisher[entry]{}}
		if b.db, err = app.DB(migrations(bankTables)); err != nil {
			return err
		}
		if set.Broken == normal {
			b.db.SetMaxOpenConns(1) // that one has it
			if _, err := b.db.ExecContext(app.Context(), `PRAGMA synchronous=NORMAL`); err != nil {
				return err
			}
		}
		if err := b.open(app.Context()); err != nil {
			return err
		}
		if set.Broken == cursor {
			return b.relayByCursor(app)
		}
		for _, name := range []string{logTopic, taskTopic, noteTopic} {
			if b.topics[name], err = messaging.NewPublisher(app, set.topic(name)); err != nil {
				return err
			}
		}
		if err := b.transfers(app); err != nil {
			return err
		}
		b.start(app)
		return nil
	}}
}

// start starts the writers.
func (b *bank) start(app *kaptar.App) {
	for i := range b.set.Writers {
		random := rand.New(rand.NewPCG(uint64(b.set.Seed), uint64(i)))
		app.Go(fmt.Sprint("writer ", i), func(ctx context.Context) error {
			b.write(ctx, random)
			return nil
		})
	}
}

// open opens the accounts.
func (b *bank) open(ctx context.Context) error {
	return sqldb.InTx(ctx, b.db, func(ctx context.Context, tx *sql.Tx) error {
		for i := range accounts {
			if _, err := tx.ExecContext(ctx, `INSERT INTO accounts (id, balance) VALUES ($1, $2) ON CONFLICT DO NOTHING`, i, deposit); err != nil {
				return err
			}
		}
		return nil
	})
}

// write commits one transaction after the other, until ctx ends.
func (b *bank) write(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		pause := b.set.Pause
		if b.set.halted() {
			pause = 100 * time.Millisecond
		} else if err := sqldb.InTx(ctx, b.db, func(ctx context.Context, tx *sql.Tx) error { return b.move(ctx, tx, random) }); err != nil && !errors.Is(err, errUndone) {
			pause = 100 * time.Millisecond // the database is away, or this process is to end
		}
		steady.Sleep(ctx, pause)
	}
}

// errUndone rolls a transaction back that has published.
var errUndone = errors.New("changed its mind")

// move moves money and publishes an event of it. The number of the event in its key's log is taken
// from what was committed before: transactions of one key of an ordered topic are one after the other.
func (b *bank) move(ctx context.Context, tx *sql.Tx, random *rand.Rand) error {
	topic, key := []string{logTopic, taskTopic, noteTopic}[random.IntN(3)], fmt.Sprint("key-", random.IntN(keys))
	e := entry{ID: uuid.NewString(), Amount: 1 + random.Int64N(9)}
	switch n := random.IntN(100); {
	case b.set.Broken != "": // one thing at a time
	case n == 0:
		e.Poison = topic == noteTopic
	case n == 1: // it is set aside, and an ordered key waits
		e.Until = time.Now().Add(time.Duration(3000+random.IntN(1000)) * time.Millisecond).UnixMilli()
	}
	if err := b.publish(ctx, tx, topic, key, e); err != nil {
		return err
	}
	if sqldb.DialectOf(b.db) == sqldb.Postgres && random.IntN(100) == 0 { // others overtake it; on SQLite they would wait
		steady.Sleep(ctx, time.Duration(random.IntN(2000))*time.Millisecond)
	}
	poison := 0
	if e.Poison {
		poison = 1
	}
	number := `NULL`
	if topic != noteTopic {
		number = `(SELECT coalesce(max(seq), 0) + 1 FROM committed WHERE topic = $2 AND key = $3)`
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO committed (id, topic, key, amount, poison, seq) VALUES ($1, $2, $3, $4, $5, `+number+`)`,
		e.ID, topic, key, e.Amount, poison); err != nil {
		return err
	}
	from := random.IntN(accounts - 1)
	to := from + 1 + random.IntN(accounts-1-from)
	amount := e.Amount * int64(1-2*random.IntN(2))
	for _, change := range [][2]int64{{int64(from), -amount}, {int64(to), amount}} { // in ascending order
		if _, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = balance + $1 WHERE id = $2`, change[1], change[0]); err != nil {
			return err
		}
	}
	if b.set.Vault != "" && random.IntN(20) == 0 {
		if err := b.begin(ctx, tx, to, e.Amount); err != nil {
			return err
		}
	}
	if random.IntN(10) == 0 {
		return errUndone
	}
	return nil
}

func (b *bank) publish(ctx context.Context, tx *sql.Tx, topic, key string, e entry) error {
	if b.set.Broken == cursor {
		return addByHand(ctx, tx, topic, key, e)
	}
	return b.topics[topic].Publish(ctx, tx, key, e)
}

const ledgerTables = `
CREATE TABLE effects (pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, amount BIGINT NOT NULL, member TEXT NOT NULL);
CREATE TABLE totals (key TEXT PRIMARY KEY, total BIGINT NOT NULL);
`

// A ledger applies the events.
type ledger struct {
	set                *settings
	deliveries, called *os.File
}

func ledgerService() kaptar.Service {
	set := new(settings)
	return kaptar.Service{Name: "ledger", Listen: "127.0.0.1:0", Settings: set, Setup: func(app *kaptar.App) (err error) {
		l := &ledger{set: set}
		db, err := app.DB(migrations(ledgerTables))
		if err != nil {
			return err
		}
		const flags = os.O_APPEND | os.O_CREATE | os.O_WRONLY
		var errs [2]error
		l.deliveries, errs[0] = os.OpenFile(filepath.Join(set.Dir, deliveryFile), flags, 0o600)
		l.called, errs[1] = os.OpenFile(filepath.Join(set.Dir, handledFile), flags, 0o600)
		if err := errors.Join(append(errs[:], messaging.Use(app, l.watch))...); err != nil {
			return err
		}
		for _, name := range []string{logTopic, taskTopic, noteTopic} {
			if err := l.subscribe(app, db, name); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (l *ledger) subscribe(app *kaptar.App, db *sql.DB, name string) error {
	handle := l.handle(name)
	if l.set.Broken == ackFirst {
		if err := outbox.Migrate(app.Context(), db); err != nil { // for the test, which reads the tables
			return err
		}
		return messaging.SubscribeAutoAck(app, l.set.topic(name), func(ctx context.Context, e messaging.Event[entry]) error {
			return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return handle(ctx, tx, e) })
		}, nil)
	}
	return messaging.Subscribe(app, l.set.topic(name), handle, nil)
}

// watch counts deliveries, and ends the process now and then when an event was handled and not
// acknowledged.
func (l *ledger) watch(next messaging.Handler) messaging.Handler {
	return func(ctx context.Context, d *driver.Delivery) error {
		_, _ = l.deliveries.Write([]byte{'.'})
		err := next(ctx, d)
		if err == nil {
			edge(l.set)
		}
		return err
	}
}

// edge kills this process, one time in so many.
func edge(set *settings) {
	if n := set.Edge; n > 0 && rand.IntN(2*n) == 0 && !set.halted() {
		kill(os.Getpid())
	}
}

// kill ends a process as SIGKILL does, and does not return when it is this one.
func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it may have ended
	}
	if pid == os.Getpid() {
		select {}
	}
}

func (l *ledger) handle(topic string) func(context.Context, *sql.Tx, messaging.Event[entry]) error {
	return func(ctx context.Context, tx *sql.Tx, e messaging.Event[entry]) error {
		_, _ = l.called.Write([]byte{'.'})
		switch {
		case e.Data.Poison:
			return messaging.Permanent(errors.New("poison"))
		case time.Now().UnixMilli() < e.Data.Until:
			return errors.New("not yet")
		}
		if done, err := l.set.forget(ctx, tx, e); done || err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO effects (id, topic, key, amount, member) VALUES ($1, $2, $3, $4, $5)`,
			e.Data.ID, topic, e.Key, e.Data.Amount, l.set.Member); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO totals (key, total) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET total = totals.total + excluded.total`,
			e.Key, e.Data.Amount); err != nil {
			return err
		}
		edge(l.set)
		return nil
	}
}
