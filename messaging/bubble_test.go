package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/drivers/memory"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// A bubble is a subscription in a bubble of testing/synctest, with a database and a broker of its
// own, and a retrier.
type bubble struct {
	*testing.T

	broker *memory.Broker
	db     *sql.DB
	c      *consumer
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	fail    func(key string, n int) error // what the handler returns, after its effect
	attempt []int                         // of all tries
}

// inBubble runs test with a subscription to the ordered or unordered topic "t".
func inBubble(t *testing.T, ordered bool, opts *SubscribeOptions, test func(b *bubble)) {
	t.Helper()
	var app *kaptar.App
	// Of a program that has ended the app still has a log, metrics and a name.
	service := kaptar.Service{Name: "store", Setup: func(a *kaptar.App) error { app = a; return nil }}
	if code := (&kaptar.Program{Services: []kaptar.Service{service}}).Main([]string{"migrate"}, io.Discard, io.Discard); code != 0 || app == nil {
		t.Fatalf("migrate: got exit code %d", code)
	}
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, broker: memory.New(), fail: func(string, int) error { return nil }}
		var err error
		if b.db, err = sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "store.db")); err != nil {
			t.Fatal(err)
		}
		defer b.db.Close()
		if err := outbox.Migrate(t.Context(), b.db); err != nil {
			t.Fatal(err)
		}
		if _, err := b.db.Exec(`CREATE TABLE effects (id INTEGER PRIMARY KEY, key TEXT, n INTEGER)`); err != nil {
			t.Fatal(err)
		}
		bus, err := busOf(app)
		if err != nil {
			t.Fatal(err)
		}
		bus.share = newShare(app)
		all, err := opts.withDefaults("store")
		if err != nil {
			t.Fatal(err)
		}
		b.c = &consumer{bus: bus, topic: "t", ordered: ordered, opts: all, running: make(chan struct{}, all.Concurrency), db: b.db}
		b.c.generations = &generations{}
		b.c.circuit, b.c.retries = newCircuit(b.c), make(chan struct{}, retryAtOnce)
		b.c.inbox = outbox.Inbox{Group: all.Group, Ordered: ordered, FromNow: all.From == FromNow}
		b.c.retrier = &retrier{bus: bus, db: b.db, signal: sqldb.NewSignal(b.db, retryLease), trying: map[string]bool{}}
		bus.subscribed[[2]string{"t", all.Group}] = b.c
		b.c.handle = inTx(b.db, decode[int], b.handle)
		b.start()
		synctest.Wait() // for what the consumer reads at its start, and a test may change after it
		test(b)
		b.stop()
	})
}

func (b *bubble) handle(ctx context.Context, tx *sql.Tx, e Event[int]) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO effects (key, n) VALUES ($1, $2)`, e.Key, e.Data); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempt = append(b.attempt, e.Attempt)
	return b.fail(e.Key, e.Data)
}

// count returns how often the handler was called.
func (b *bubble) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.attempt)
}

// set changes what the handler returns.
func (b *bubble) set(fail func(key string, n int) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = fail
}

func (b *bubble) start() {
	stop, cancel := context.WithCancel(b.Context())
	b.cancel = cancel
	b.work.Go(func() { b.c.consume(stop, b.broker, b.c.subscription()) })
	b.work.Go(func() { _ = b.c.retrier.run(stop) })
}

func (b *bubble) stop() {
	b.cancel()
	b.work.Wait()
}

// bubbleEvent is an event of a key with a number, 0 for none.
func bubbleEvent(key string, n, seq int) driver.Message {
	id := fmt.Sprint(key, "-", n)
	m := driver.Message{ID: id, Topic: "t", Key: key, Data: []byte(fmt.Sprint(n)), Headers: driver.Headers{
		{Name: driver.HeaderID, Value: id}, {Name: driver.HeaderSource, Value: "shop"}, {Name: driver.HeaderSpecVersion, Value: specVersion},
		{Name: driver.HeaderType, Value: "t"}, {Name: driver.HeaderTraceParent, Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}}
	if seq != 0 {
		m.Headers = append(m.Headers, driver.Header{Name: driver.HeaderSequence, Value: fmt.Sprint(seq)})
	}
	m.Headers.Sort()
	return m
}

// publish puts numbers of a key on the broker, each number being the event's data too.
func (b *bubble) publish(key string, numbers ...int) {
	b.Helper()
	for _, n := range numbers {
		seq := n
		if !b.c.ordered {
			seq = 0
		}
		b.send(bubbleEvent(key, n, seq))
	}
	b.wait(0)
}

func (b *bubble) send(m driver.Message) {
	b.Helper()
	if err := b.broker.Publish(b.Context(), []driver.Message{m}); err != nil {
		b.Fatal(err)
	}
}

// wait lets time pass.
func (b *bubble) wait(d time.Duration) {
	time.Sleep(d + 10*time.Millisecond)
	synctest.Wait()
}

// want fails unless the effects of a key are those numbers.
func (b *bubble) want(key string, numbers ...int) {
	b.Helper()
	got, err := sqldb.Select(context.Background(), b.db, func(row sqldb.Row) (n int, err error) { return n, row.Scan(&n) },
		`SELECT n FROM effects WHERE key = $1 ORDER BY id`, key)
	if err != nil || !slices.Equal(got, numbers) {
		b.Errorf("effects of %s: got %v, %v, want %v", key, got, err, numbers)
	}
}

// aside fails unless the states of what is set aside, by id, are those.
func (b *bubble) aside(want ...string) []outbox.DeadLetter {
	b.Helper()
	all, err := outbox.DeadLetters(context.Background(), b.db, nil)
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, d := range all {
		got = append(got, d.Message.ID+" "+d.State)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.Errorf("set aside: got %v, want %v", got, want)
	}
	return all
}

// gauge fails unless a gauge of the subscription has that value.
func (b *bubble) gauge(of *prometheus.GaugeVec, want float64) {
	b.Helper()
	var m dto.Metric
	if err := of.WithLabelValues("t", "store").Write(&m); err != nil || m.GetGauge().GetValue() != want {
		b.Errorf("gauge: got %v, %v, want %v", m.GetGauge().GetValue(), err, want)
	}
}

// counted fails unless so many deliveries and retries had that outcome.
func (b *bubble) counted(what outcome, want float64) {
	b.Helper()
	var m dto.Metric
	if err := b.c.bus.metrics.processed.WithLabelValues("t", string(what)).Write(&m); err != nil || m.GetCounter().GetValue() != want {
		b.Errorf("outcome %s: counted %v, %v, want %v", what, m.GetCounter().GetValue(), err, want)
	}
}

// operate is what an operator does.
func (b *bubble) operate(f func(ctx context.Context, tx *sql.Tx, id int64) error, id int64) error {
	err := sqldb.InTx(b.Context(), b.db, func(ctx context.Context, tx *sql.Tx) error { return f(ctx, tx, id) })
	b.wait(2 * time.Second)
	return err
}

var errNever = errors.New("never")

// failing fails for one number of a key.
func failing(key string, n int) func(string, int) error {
	return func(k string, m int) error {
		if k == key && m == n {
			return errNever
		}
		return nil
	}
}
