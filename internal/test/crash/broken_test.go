package crash

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// The promises that the program breaks when its setting broken says so.
const (
	noInbox  = "inbox"  // an event is another one at each delivery
	noSource = "source" // an event is known by its id alone
	noOrder  = "order"  // no topic is ordered
	ackFirst = "ack"    // the broker is told before the commit
	normal   = "normal" // SQLite does not sync each commit
	cursor   = "cursor" // the relay remembers the last id that it has sent
)

// forget has a consumer forget what it has handled, or whose it was; done means that there is nothing to
// do.
func (s *settings) forget(ctx context.Context, tx *sql.Tx, e messaging.Event[entry]) (done bool, err error) {
	switch s.Broken {
	case noInbox:
		_, err = tx.ExecContext(ctx, `DELETE FROM kaptar_inbox`)
	case noSource:
		err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM kaptar_inbox WHERE msgid = $1 AND source <> $2)`, e.ID, e.Source).Scan(&done)
	}
	return done, err
}

// addByHand does without a publisher, which would bring its own relay.
func addByHand(ctx context.Context, tx *sql.Tx, topic, key string, e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	id := uuid.NewString()
	return outbox.Add(ctx, tx, driver.Message{ID: id, Topic: topic, Key: key, Data: data, Headers: driver.HeadersOf(cloudEvent("bank", id, topic, key))})
}

func cloudEvent(source, id, topic, key string) map[string]string {
	return map[string]string{
		driver.HeaderSpecVersion: "1.0", driver.HeaderID: id, driver.HeaderSource: source, driver.HeaderType: topic,
		driver.HeaderSubject: key, driver.HeaderContentType: "application/json",
	}
}

// relayByCursor starts the writers and a relay that goes on behind the last row that it has seen.
func (b *bank) relayByCursor(app *kaptar.App) error {
	if err := outbox.Migrate(app.Context(), b.db); err != nil {
		return err
	}
	backend, err := app.Backend(app.Context(), kaptar.SectionOf[messaging.Settings](app).BrokerURL.Reveal())
	if err != nil {
		return err
	}
	broker, err := backend.(interface{ Broker() (driver.Broker, error) }).Broker()
	if err != nil {
		return err
	}
	b.start(app)
	app.Go("relay", func(ctx context.Context) error {
		for last := int64(0); ctx.Err() == nil; {
			var msgs []driver.Message
			_, err := sqldb.Select(ctx, b.db, func(row sqldb.Row) (id int64, err error) {
				var m driver.Message
				var headers []byte
				if err := row.Scan(&id, &m.ID, &m.Topic, &m.Key, &headers, &m.Data); err != nil {
					return 0, err
				}
				last, msgs = id, append(msgs, m)
				return id, msgs[len(msgs)-1].Headers.UnmarshalJSON(headers)
			}, `SELECT id, msgid, topic, key, headers, payload FROM kaptar_outbox WHERE id > $1 ORDER BY id LIMIT 500`, last)
			for err == nil && broker.Publish(ctx, msgs) != nil && ctx.Err() == nil {
				steady.Sleep(ctx, 10*time.Millisecond)
			}
			steady.Sleep(ctx, time.Millisecond)
		}
		return nil
	})
	return nil
}

// foreign publishes events as two programs that count alike, in CloudEvents of their own, and returns
// them.
func (s *site) foreign(n int) (events []Event) {
	s.t.Helper()
	conn, err := nats.Connect(strings.Split(s.engines[0].URL(), "?")[0])
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	for i := range n {
		for _, source := range []string{"east", "west"} {
			e := Event{ID: fmt.Sprint(source, "-", i), Topic: noteTopic, Key: "foreign", Amount: 1}
			data, err := json.Marshal(entry{ID: e.ID, Amount: e.Amount})
			if err != nil {
				s.t.Fatal(err)
			}
			m := nats.Msg{Subject: noteTopic + ".p00", Data: data, Header: nats.Header{}}
			for name, value := range cloudEvent(source, fmt.Sprint(i), noteTopic, e.Key) {
				m.Header[name] = []string{value}
			}
			answer, err := conn.RequestMsg(&m, liveness)
			for errors.Is(err, nats.ErrNoResponders) { // nobody has made the topic yet
				<-time.After(50 * time.Millisecond)
				answer, err = conn.RequestMsg(&m, liveness)
			}
			if err != nil || strings.Contains(string(answer.Data), "error") {
				s.t.Fatalf("publish %s: %v %v", e.ID, answer, err)
			}
			events = append(events, e)
		}
	}
	return events
}

// postgresNATS is a shape for the one that needs transactions that commit out of order.
func (s *site) postgresNATS() {
	s.sqliteNATS()
	s.databases["bank"] = servertest.Database(s.t)
}

// TestMutants breaks a promise at a time: the checker that is for it turns red.
func TestMutants(t *testing.T) {
	t.Parallel()
	sqlite := shape{open: (*site).sqliteNATS}
	for _, m := range []struct {
		broken string
		shape  shape
		ledger map[string]string
		bank   map[string]string
		want   string
		says   string
	}{
		{noInbox, sqlite, map[string]string{"edge": "60"}, nil, Twice, "applied 2 times"},
		{ackFirst, sqlite, map[string]string{"edge": "60"}, nil, Lost, "neither"},
		{noOrder, sqlite, nil, map[string]string{"pause": "2ms"}, Order, "number"},
		{noSource, sqlite, nil, nil, Lost, "of foreign"},
		{cursor, shape{open: (*site).postgresNATS}, nil, map[string]string{"writers": "16", "pause": "0s"}, Lost, "neither"},
	} {
		t.Run(m.broken, func(t *testing.T) {
			t.Parallel()
			s := openSite(t, m.shape, 1, map[string]string{"broken": m.broken})
			s.settings["broker_url"] = strings.Replace(s.settings["broker_url"], "ack_wait=6s", "ack_wait=2s", 1)
			for i := range 3 {
				s.run(fmt.Sprint("ledger-", i), "ledger", m.ledger)
			}
			bank := map[string]string{"writers": "4"}
			maps.Copy(bank, m.bank)
			s.run("writer", "bank", bank)
			b := s.books(false)
			foreign := s.foreign(10)
			for count(t, b.ledger, `SELECT count(*) FROM effects`) < 400 || m.ledger["edge"] != "" && s.kills.Load() < 3 {
				<-time.After(100 * time.Millisecond)
			}
			check := func() map[string][]string {
				r := s.record(b)
				r.Committed = append(r.Committed, foreign...)
				return Check(r)
			}
			found := check()
			if m.want == Lost { // what is on its way is not
				s.halt()
				s.still(b.ledger)
				found = check()
			}
			// The others show by chance, which is given time.
			for begun := time.Now(); len(found[m.want]) == 0 && time.Since(begun) < liveness; <-time.After(time.Second) {
				found = check()
			}
			t.Logf("%d kills; %s: %d, the first is %s", s.kills.Load(), m.want, len(found[m.want]), slices.Concat(found[m.want], []string{"none"})[0])
			if !strings.Contains(strings.Join(found[m.want], "\n"), m.says) {
				t.Errorf("%s is broken, and the checker %q has found nothing with %q; all: %v", m.broken, m.want, m.says, found)
			}
		})
	}
}

// still waits until nothing has been applied for some seconds, which is longer than the ack wait.
func (s *site) still(ledger *sql.DB) {
	for last, since := int64(-1), time.Now(); time.Since(since) < 5*time.Second; <-time.After(100 * time.Millisecond) {
		if n := count(s.t, ledger, `SELECT count(*) FROM effects`); n != last {
			last, since = n, time.Now()
		}
	}
}
