package messaging_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// plain runs testdata/plain.py and returns what it prints.
func plain(t *testing.T, what, url, name string, count int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, servertest.Python(t), "testdata/plain.py", what, url, name, fmt.Sprint(count))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("plain.py %s %s: %v\n%s", what, name, err, &stderr)
	}
	return string(out)
}

// body is message number n of plain.py.
func body(n int) []byte {
	b := []byte{byte(n)}
	for i := range 256 {
		b = append(b, byte(i))
	}
	return b
}

// A rawService collects what comes on one topic and publishes to another one.
type rawService struct {
	from, to string
	db       *sql.DB
	pub      *messaging.Publisher[messaging.Raw]

	mu  sync.Mutex
	got []messaging.Event[messaging.Raw]
}

func (r *rawService) service() kaptar.Service {
	return kaptar.Service{Name: "raw", Setup: func(app *kaptar.App) (err error) {
		if r.db, err = app.DB(nil); err != nil {
			return err
		}
		if r.pub, err = messaging.NewPublisher(app, messaging.Topic[messaging.Raw]{Name: r.to}); err != nil {
			return err
		}
		return messaging.Subscribe(app, messaging.Topic[messaging.Raw]{Name: r.from}, r.handle, nil)
	}}
}

func (r *rawService) handle(_ context.Context, _ *sql.Tx, e messaging.Event[messaging.Raw]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, e)
	return nil
}

func (r *rawService) events() []messaging.Event[messaging.Raw] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *rawService) publish(t *testing.T, count int) {
	t.Helper()
	err := sqldb.InTx(t.Context(), r.db, func(ctx context.Context, tx *sql.Tx) error {
		for n := range count {
			data := messaging.Raw{Body: body(n), Headers: map[string]string{"X-Mark": "go", "correlation-id": fmt.Sprint(n)}}
			if err := r.pub.Publish(ctx, tx, fmt.Sprint("k", n), data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPlainPrograms: programs without kaptar, written with pika and kafka-python as usual, send to
// and read from a service, in whichever order they start.
func TestPlainPrograms(t *testing.T) {
	t.Parallel()
	const count = 20 // one batch
	suffix := fmt.Sprint(time.Now().UnixNano())
	for name, url := range map[string]func(t *testing.T) string{
		"kafka":    func(t *testing.T) string { return servertest.Shared(t, servers.Kafka).URL() },
		"rabbitmq": func(t *testing.T) string { return servertest.VHost(t) },
	} {
		for _, first := range []string{"python", "service"} {
			t.Run(name+" "+first+" first", func(t *testing.T) {
				t.Parallel()
				url := url(t)
				r := &rawService{from: "hello_" + first + suffix, to: "answers_" + first + suffix}
				if first == "python" || name == "kafka" { // a topic that others make
					plain(t, "send", url, r.from, count)
				}
				start(t, t.TempDir(), map[string]string{"broker_url": url}, r.service())
				r.publish(t, count)
				if first != "python" && name != "kafka" {
					plain(t, "send", url, r.from, count)
				}
				eventually(t, "all from Python", func() bool { return len(r.events()) >= count })
				checkRaw(t, name, r.events())

				lines := strings.Split(strings.TrimSpace(plain(t, "read", url, r.to, count)), "\n")
				slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[:len(`{"body": "00`)], b[:len(`{"body": "00`)]) })
				for n, line := range lines {
					var got struct {
						Body, Key string
						Headers   map[string]string
					}
					if err := json.Unmarshal([]byte(line), &got); err != nil {
						t.Fatal(err)
					}
					key := map[string]string{"kafka": fmt.Sprint("k", n), "rabbitmq": fmt.Sprint(n)}[name]
					if got.Body != fmt.Sprintf("%x", body(n)) || got.Headers["X-Mark"] != "go" || got.Key != key {
						t.Errorf("Python read %+v, want body %d unchanged with its header and key %s", got, n, key)
					}
				}
				if len(lines) != count {
					t.Errorf("Python read %d messages, want %d", len(lines), count)
				}
				if dead, err := outbox.DeadLetters(t.Context(), r.db, nil); err != nil || len(dead) != 0 {
					t.Errorf("dead letters: %+v, %v; want none", dead, err)
				}
			})
		}
	}
}

// TestRawUnchanged: whatever bytes and header names go in come out, through outbox, broker and
// inbox.
func TestRawUnchanged(t *testing.T) {
	t.Parallel()
	r := &rawService{from: "a/b:c", to: "a/b:c"}
	start(t, t.TempDir(), map[string]string{"broker_url": "memory:"}, r.service())
	r.publish(t, 3)
	eventually(t, "all", func() bool { return len(r.events()) == 3 })
	for _, e := range r.events() {
		n := strings.TrimPrefix(e.Key, "k")
		if !bytes.Equal(e.Data.Body, body(int(n[0]-'0'))) || e.Data.Headers["X-Mark"] != "go" || e.Data.Headers["correlation-id"] != n || e.Source != "" {
			t.Errorf("got %+v, want it as it was published", e)
		}
		for name := range e.Data.Headers {
			if strings.HasPrefix(name, "ce-") {
				t.Errorf("header %s in a raw message", name)
			}
		}
	}
}

// TestPlainNATS: a program that knows subjects only, and nothing of JetStream.
func TestPlainNATS(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	r := &rawService{from: "hello", to: "answers"}
	conn, err := nats.Connect(broker.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers, err := conn.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, r.service())
	for n := range 20 {
		if err := conn.PublishMsg(&nats.Msg{Subject: "hello", Header: nats.Header{"X-Mark": {"py"}}, Data: body(n)}); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(t, 20)
	eventually(t, "all events", func() bool { return len(r.events()) >= 20 })
	checkRaw(t, "nats", r.events())
	seen := make(map[string]bool)
	for range 20 {
		m, err := answers.NextMsg(timeout)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(m.Data)] = true; !bytes.Equal(m.Data, body(int(m.Data[0]))) || m.Header.Get("X-Mark") != "go" {
			t.Errorf("a plain program gets %q with %v, want what was published", m.Data, m.Header)
		}
	}
	if len(seen) != 20 {
		t.Errorf("a plain program gets %d different messages, want 20", len(seen))
	}
}

func checkRaw(t *testing.T, name string, events []messaging.Event[messaging.Raw]) {
	t.Helper()
	seen := make(map[string]bool)
	for _, e := range events {
		n := int(e.Data.Body[0])
		if !bytes.Equal(e.Data.Body, body(n)) || e.Data.Headers["X-Mark"] != "py" || e.ID == "" || seen[e.ID] || e.Attempt != 1 {
			t.Errorf("got %+v, want a body unchanged, the header and an id of its own", e)
		}
		if h := e.Data.Headers; name == "rabbitmq" && (e.ID != fmt.Sprint("py-", n) || h["reply-to"] != "answers" || h["correlation-id"] != fmt.Sprint(n)) {
			t.Errorf("got %+v, want the properties of the message", e)
		}
		seen[e.ID] = true
	}
	if len(events) != 20 {
		t.Errorf("%d events, want 20", len(events))
	}
}
