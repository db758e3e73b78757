package messaging_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// timeout is how long a test waits for what is bound to happen, or for some more of it.
const timeout = time.Minute

type placed struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

var orders = messaging.Topic[placed]{Name: "order.placed.v1"}

// A natsServer is a real broker that can be stopped and started again.
type natsServer struct {
	t          *testing.T
	dir        string
	port       int
	maxPayload int32
	s          *server.Server
}

func startBroker(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{t: t, dir: t.TempDir(), port: servertest.Port(t)}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoSigs: true, NoLog: true, MaxPayload: n.maxPayload,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(timeout) {
		n.t.Fatalf("broker is not ready after %v", timeout)
	}
	n.s = s
}

func (n *natsServer) stop() {
	n.s.Shutdown()
	n.s.WaitForShutdown()
}

func (n *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.port) }

// raw puts a message on a topic as a program in another language would.
func (n *natsServer) raw(topic, data string, headers map[string]string) {
	n.t.Helper()
	conn, err := nats.Connect(n.url())
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	m := &nats.Msg{Subject: topic + ".p00", Data: []byte(data), Header: nats.Header{}}
	for name, value := range headers {
		m.Header[name] = []string{value}
	}
	answer, err := conn.RequestMsg(m, timeout)
	if err != nil || strings.Contains(string(answer.Data), "error") {
		n.t.Fatalf("raw message %s: %v, %v", data, answer, err)
	}
}

func cloudEvent(id, key string) map[string]string {
	return map[string]string{
		"ce-specversion": "1.0", "ce-id": id, "ce-source": "elsewhere", "ce-type": orders.Name, "ce-subject": key,
		"ce-time": "2026-03-01T12:00:00Z", "content-type": "application/json; charset=utf-8",
	}
}

// A system is services with one broker.
type system struct{ *kaptartest.System }

// start runs services with databases in dir; values are settings.
func start(t *testing.T, dir string, values map[string]string, services ...kaptar.Service) *system {
	t.Helper()
	return &system{kaptartest.StartWith(t, &kaptartest.Options{Settings: settings(dir, values, services)}, services...)}
}

func settings(dir string, values map[string]string, services []kaptar.Service) map[string]string {
	all := map[string]string{"log_format": "text"}
	for _, s := range services {
		all["services."+s.Name+".listen"] = "127.0.0.1:0"
		all["services."+s.Name+".database_url"] = "sqlite:" + filepath.Join(dir, s.Name+".db")
	}
	maps.Copy(all, values)
	return all
}

// metric returns the value of a line of the service's /metrics, "" for none.
func (s *system) metric(service, name string) string {
	for line := range strings.Lines(s.Do("GET", service, "/metrics", "").Body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// processed is the number of deliveries to a service with an outcome.
func (s *system) processed(service, outcome string) string {
	return s.metric(service, fmt.Sprintf(`messaging_processed_total{outcome=%q,service=%q,topic=%q}`, outcome, service, orders.Name))
}

// ordersAs is the topic orders under a name, for a broker that several tests use; "" is its own.
func ordersAs(name string) messaging.Topic[placed] {
	return messaging.Topic[placed]{Name: cmp.Or(name, orders.Name)}
}

// A shop publishes orders.
type shop struct {
	topic string // as ordersAs has it
	app   *kaptar.App
	db    *sql.DB
	pub   *messaging.Publisher[placed]
}

func (s *shop) service() kaptar.Service {
	return kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) (err error) {
		s.app = app
		if s.db, err = app.DB(nil); err != nil {
			return err
		}
		s.pub, err = messaging.NewPublisher(app, ordersAs(s.topic))
		return err
	}}
}

// publish publishes data in one transaction.
func (s *shop) publish(t *testing.T, key string, data ...placed) {
	t.Helper()
	err := sqldb.InTx(context.Background(), s.db, func(ctx context.Context, tx *sql.Tx) error {
		for _, d := range data {
			if err := s.pub.Publish(ctx, tx, key, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("publish %v: %v", data, err)
	}
}

type handler func(ctx context.Context, tx *sql.Tx, e messaging.Event[placed]) error

// A store keeps what it is told in a table of its database, in the order of the
// handling, after what handle says.
type store struct {
	name   string
	topic  string // as ordersAs has it
	opts   *messaging.SubscribeOptions
	handle handler
	db     *sql.DB
}

func (s *store) service() kaptar.Service {
	return kaptar.Service{Name: s.name, Setup: func(app *kaptar.App) (err error) {
		if s.db, err = app.DB(nil); err != nil {
			return err
		}
		if _, err := s.db.Exec(`CREATE TABLE IF NOT EXISTS effects (id INTEGER PRIMARY KEY, key TEXT, n INTEGER)`); err != nil {
			return err
		}
		return messaging.Subscribe(app, ordersAs(s.topic), func(ctx context.Context, tx *sql.Tx, e messaging.Event[placed]) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO effects (key, n) VALUES ($1, $2)`, e.Key, e.Data.N); err != nil {
				return err
			}
			if s.handle == nil {
				return nil
			}
			return s.handle(ctx, tx, e) // after the effect, so that a failure must undo it
		}, s.opts)
	}}
}

func newStore(handle handler) *store {
	return &store{name: "store", handle: handle}
}

// effects returns the numbers stored for key, in order; key "*" means all.
func (s *store) effects(t *testing.T, key string) []int {
	t.Helper()
	rows, err := s.db.Query(`SELECT n FROM effects WHERE key = $1 OR $2 = '*' ORDER BY id`, key, key)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []int
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *store) deadLetters(t *testing.T) []outbox.DeadLetter {
	t.Helper()
	dead, err := outbox.DeadLetters(context.Background(), s.db, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dead
}

// arrive waits until the store has n effects of key, for as long as some more come: how fast the disk
// is has nothing to do with it.
func (s *store) arrive(t *testing.T, key string, n int) {
	t.Helper()
	for have := 0; have < n; {
		before := have
		eventually(t, fmt.Sprintf("%d effects of key %s after %d", n, key, before), func() bool {
			have = len(s.effects(t, key))
			return have > before
		})
	}
}

// waitFor waits until the store has as many effects as want and compares them.
func (s *store) waitFor(t *testing.T, key string, want ...int) {
	t.Helper()
	s.arrive(t, key, len(want))
	if got := s.effects(t, key); !slices.Equal(got, want) {
		t.Fatalf("effects of key %s: got %v, want %v", key, got, want)
	}
}

// waitForAll is waitFor in whatever order; want is sorted.
func (s *store) waitForAll(t *testing.T, key string, want ...int) {
	t.Helper()
	s.arrive(t, key, len(want))
	if got := s.effects(t, key); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Fatalf("effects of key %s: got %v, want %v in any order", key, got, want)
	}
}

// open gives a stopped store its database again.
func (s *store) open(t *testing.T, dir string) {
	t.Helper()
	db, err := sqldb.Open(context.Background(), "sqlite:"+filepath.Join(dir, s.name+".db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s.db = db
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	waittest.Until(t, what, done)
}

func receive[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(timeout):
		t.Fatalf("waited %v for %s", timeout, what)
	}
	return v
}
