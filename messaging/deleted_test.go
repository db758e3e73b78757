package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/kafka"    // kafka://
	_ "github.com/kaptar/kaptar/drivers/rabbitmq" // amqp://
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// A deletion is what an administrator does to a topic under a service.
type deletion struct {
	name   string
	broker func(t *testing.T) string
	delete func(t *testing.T, url, topic, group string)
	says   string // in the log
	// loses: what is published before the service has noticed is lost to it.
	loses bool
}

func deletions() []deletion {
	rabbit := func(t *testing.T) string { return servertest.VHost(t) + "?partitions=3" }
	return []deletion{
		{name: "NATS stream", broker: func(t *testing.T) string { return startBroker(t).url() }, delete: deleteStream, says: "was deleted"},
		{name: "Kafka topic", broker: func(t *testing.T) string { return servertest.Shared(t, servers.Kafka).URL() + "?partitions=2" }, delete: deleteKafkaTopic, says: "topic %s was deleted"},
		{name: "RabbitMQ exchange", broker: rabbit, delete: deleteExchange, says: "no exchange '%s'"},
		{name: "RabbitMQ exchange of the group", broker: rabbit, delete: deleteGroupExchange, says: "no exchange '%s:watcher'", loses: true},
		{name: "RabbitMQ queues", broker: rabbit, delete: deleteQueues("0", "1", "2"), says: "queue %s:watcher:", loses: true},
		{name: "RabbitMQ queue", broker: rabbit, delete: deleteQueues("1"), says: "queue %s:watcher:1 was deleted", loses: true},
	}
}

func deleteStream(t *testing.T, url, topic, _ string) {
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		if info, err := js.Stream(t.Context(), name); err == nil && info.CachedInfo().Config.Subjects[0] == topic+".*" {
			if err := js.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no stream of topic %s: %v", topic, names.Err())
}

func deleteKafkaTopic(t *testing.T, url, topic, _ string) {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "kafka://"), "?")
	cl, err := kgo.NewClient(kgo.SeedBrokers(host))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	before, err := adm.ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adm.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker to know of the deletion", func() bool {
		now, err := adm.ListTopics(t.Context(), topic)
		return err == nil && (errors.Is(now[topic].Err, kerr.UnknownTopicOrPartition) || now[topic].ID != before[topic].ID)
	})
}

func rabbitChannel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	server, _, _ := strings.Cut(url, "?")
	conn, err := amqp.Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func deleteExchange(t *testing.T, url, topic, _ string) {
	if err := rabbitChannel(t, url).ExchangeDelete(topic, false, false); err != nil {
		t.Fatal(err)
	}
}

func deleteGroupExchange(t *testing.T, url, topic, group string) {
	deleteExchange(t, url, topic+":"+group, "")
}

func deleteQueues(numbers ...string) func(t *testing.T, url, topic, group string) {
	return func(t *testing.T, url, topic, group string) {
		ch := rabbitChannel(t, url)
		for _, n := range numbers {
			if _, err := ch.QueueDelete(topic+":"+group+":"+n, false, false, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A watcher publishes to two topics and handles what comes of them, in one service.
type watcher struct {
	topics [2]messaging.Topic[placed]
	pubs   [2]*messaging.Publisher[placed]
	db     *sql.DB

	mu   sync.Mutex
	seen map[string]map[int]bool // by topic
}

func newWatcher(prefix string) *watcher {
	w := &watcher{seen: make(map[string]map[int]bool)}
	for i, name := range []string{"gone.v1", "stays.v1"} {
		w.topics[i].Name = prefix + name
		w.seen[w.topics[i].Name] = make(map[int]bool)
	}
	return w
}

func (w *watcher) service() kaptar.Service {
	return kaptar.Service{Name: "watcher", Setup: func(app *kaptar.App) (err error) {
		if w.db, err = app.DB(nil); err != nil {
			return err
		}
		for i, topic := range w.topics {
			if w.pubs[i], err = messaging.NewPublisher(app, topic); err != nil {
				return err
			}
			err = messaging.Subscribe(app, topic, func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.seen[topic.Name][e.Data.N] = true
				return nil
			}, &messaging.SubscribeOptions{From: messaging.FromNow})
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

// publish publishes n to topic number i, under a key of its own.
func (w *watcher) publish(t *testing.T, i, n int) {
	t.Helper()
	err := sqldb.InTx(context.Background(), w.db, func(ctx context.Context, tx *sql.Tx) error {
		return w.pubs[i].Publish(ctx, tx, fmt.Sprint(n), placed{N: n})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// missing returns which of the numbers from..to of topic number i were not handled.
func (w *watcher) missing(i, from, to int) (list []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := from; n <= to; n++ {
		if !w.seen[w.topics[i].Name][n] {
			list = append(list, n)
		}
	}
	return list
}

// await publishes to topic number i, from n on, until something of it is handled, and returns the
// next number.
func (w *watcher) await(t *testing.T, i, n int) int {
	t.Helper()
	first := n
	eventually(t, "an event of "+w.topics[i].Name, func() bool {
		w.publish(t, i, n)
		n++
		return len(w.missing(i, first, n-1)) < n-first
	})
	return n
}

// TestDeletedTopic: a topic that is deleted under a running service is made again, however often.
// The log tells of it once, and the events of the topic go on, those published meanwhile too, as do
// those of another topic.
func TestDeletedTopic(t *testing.T) {
	t.Parallel()
	for _, d := range deletions() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			url := d.broker(t)
			w := newWatcher("deleted.")
			s := start(t, t.TempDir(), map[string]string{"broker_url": url}, w.service())
			n := w.await(t, 0, 1)
			w.await(t, 1, 1)
			eventually(t, "all before the deletion", func() bool { return len(w.missing(0, n-1, n-1)) == 0 })
			topic := w.topics[0].Name
			for round := range 2 {
				logged := len(s.Log())
				d.delete(t, url, topic, "watcher")
				says := strings.ReplaceAll(d.says, "%s", topic)
				if d.loses {
					eventually(t, "the log to say "+says, func() bool { return strings.Contains(s.Log()[logged:], says) })
					n = w.await(t, 0, n)
				}
				first := n
				for ; n < first+50; n++ {
					w.publish(t, 0, n)
					w.publish(t, 1, n)
				}
				eventually(t, "all after the deletion", func() bool { return len(w.missing(0, first, n-1)) == 0 })
				eventually(t, "all of the other topic", func() bool { return len(w.missing(1, first, n-1)) == 0 })
				checkTold(t, s.Log()[logged:], topic, says, url)
				t.Logf("round %d:\n%s", round, s.Log()[logged:])
			}
		})
	}
}

// checkTold: the log says what became of the topic and of which broker, and does not repeat itself.
func checkTold(t *testing.T, log, topic, says, url string) {
	t.Helper()
	_, host, _ := strings.Cut(url, "://")
	if _, after, ok := strings.Cut(host, "@"); ok {
		host = after
	}
	host, _, _ = strings.Cut(host, "?")
	told, kinds := false, make(map[string]int)
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=INFO") {
			continue
		}
		_, kind, _ := strings.Cut(line, "msg=") // with its reason
		kinds[kind]++
		if strings.Contains(line, says) && strings.Contains(line, topic) && strings.Contains(line, host) {
			told = true
		}
		if strings.Contains(line, "guest:guest") {
			t.Errorf("the log shows the password: %s", line)
		}
	}
	if !told {
		t.Errorf("no line of the log says %q, topic %s and broker %s:\n%s", says, topic, host, log)
	}
	for kind, n := range kinds {
		if n > 1 {
			t.Errorf("the log says %q %d times:\n%s", kind, n, log)
		}
	}
}
