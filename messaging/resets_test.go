package messaging_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/kafka"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging"
)

// A reading is a service that publishes to a topic and reads it in two groups, as it runs, and its operator.
type reading struct {
	t             *testing.T
	topic         messaging.Topic[placed]
	values        map[string]string
	pub           *messaging.Publisher[placed]
	db            *sql.DB
	first, second atomic.Int64
	fail          atomic.Bool // the first group fails for good
}

func (r *reading) service() kaptar.Service {
	return kaptar.Service{Name: "reader", Setup: func(app *kaptar.App) (err error) {
		pub, err := messaging.NewPublisher(app, r.topic)
		if err != nil {
			return err
		}
		db, err := app.DB(nil)
		if err != nil {
			return err
		}
		if !app.Offline() {
			r.pub, r.db = pub, db
		}
		from := messaging.FromBeginning
		if strings.HasPrefix(r.values["broker_url"], "amqp:") {
			from = messaging.FromNow
		}
		err = messaging.Subscribe(app, r.topic, func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
			if r.fail.Load() {
				return messaging.Permanent(fmt.Errorf("no luck with %d", e.Data.N))
			}
			r.first.Add(1)
			return nil
		}, &messaging.SubscribeOptions{From: from})
		if err != nil {
			return err
		}
		return messaging.Subscribe(app, r.topic, func(context.Context, *sql.Tx, messaging.Event[placed]) error {
			r.second.Add(1)
			return nil
		}, &messaging.SubscribeOptions{Group: "reader.second", From: from})
	}}
}

// run runs a command line of the service's operator.
func (r *reading) run(line string) (code int, out string) {
	r.t.Helper()
	args := strings.Fields(line)
	for key, value := range r.values {
		args = append(args, "--set", key+"="+value)
	}
	var b bytes.Buffer
	code = (&kaptar.Program{Services: []kaptar.Service{r.service()}, Commands: messaging.Commands()}).Main(args, &b, &b)
	return code, b.String()
}

func (r *reading) publish(n int) {
	r.t.Helper()
	tx, err := r.db.BeginTx(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer tx.Rollback()
	if err := r.pub.Publish(r.t.Context(), tx, fmt.Sprint("k", n%3), placed{N: n}); err != nil {
		r.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

// counts waits until the groups have handled so many.
func (r *reading) counts(first, second int64) {
	r.t.Helper()
	waittest.Said(r.t, func() string {
		if one, two := r.first.Load(), r.second.Load(); one != first || two != second {
			return fmt.Sprintf("%d in the first group and %d in the second, of which %d and %d are handled", first, second, one, two)
		}
		return ""
	})
}

// TestReset: a group begins again while its service runs, and another group of the same service and topic does not (fault 17).
func TestReset(t *testing.T) {
	t.Parallel()
	for name, urls := range map[string]func(t *testing.T) (broker, db string){
		"sqlite and nats": func(t *testing.T) (string, string) {
			return startBroker(t).url(), "sqlite:" + t.TempDir() + "/reader.db"
		},
		"postgres and kafka": func(t *testing.T) (string, string) {
			return servertest.Shared(t, servers.Kafka).URL() + "?partitions=2", servertest.Database(t)
		},
	} {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ordered %v", name, ordered), func(t *testing.T) {
				t.Parallel()
				broker, db := urls(t)
				r := &reading{
					t: t, topic: messaging.Topic[placed]{Name: "reset." + strings.ToLower(rand.Text()[:8]), Ordered: ordered},
					values: map[string]string{"broker_url": broker, "services.reader.database_url": db, "services.reader.listen": "127.0.0.1:0"},
				}
				start(t, t.TempDir(), r.values, r.service())
				for n := range 6 {
					r.publish(n)
				}
				r.counts(6, 6)
				code, out := r.run("events reset reader " + r.topic.Name + " --group reader.second --to beginning --why report")
				if code != 0 || !strings.Contains(out, "Group reader.second of "+r.topic.Name+" begins again.") {
					t.Fatalf("reset: %d %s", code, out)
				}
				r.counts(6, 12)
				r.publish(6)
				r.counts(7, 13)
				if code, out = r.run("events reset reader " + r.topic.Name + " --group reader --to -1h --why report"); code != 0 {
					t.Fatalf("reset to a time: %d %s", code, out)
				}
				r.counts(14, 13)
				eventually(t, "all is acknowledged", func() bool {
					code, out := r.run("events list --json")
					var services []struct {
						Events []struct {
							Group string
							Lag   *int64
						}
					}
					if code != 0 || json.Unmarshal([]byte(out), &services) != nil || len(services) != 1 {
						t.Fatalf("events list: %d %s", code, out)
					}
					for _, f := range services[0].Events {
						if f.Group != "" && (f.Lag == nil || *f.Lag != 0) {
							return false
						}
					}
					return len(services[0].Events) == 3
				})
				if code, out := r.run("deadletters audit"); code != 0 || strings.Count(out, "reset") < 2 || !strings.Contains(out, "report") {
					t.Errorf("audit: %d %s", code, out)
				}
				if code, out := r.run("events"); code != 0 || !strings.Contains(out, "reader.second") || !strings.Contains(out, "0 in the outbox") {
					t.Errorf("events: %d %s", code, out)
				}
			})
		}
	}
}

// TestResetKeepsWhatIsSetAside: what is set aside is not handled twice, and is replayed in the new generation.
func TestResetKeepsWhatIsSetAside(t *testing.T) {
	t.Parallel()
	r := &reading{t: t, topic: orders, values: map[string]string{
		"broker_url": startBroker(t).url(), "services.reader.database_url": "sqlite:" + t.TempDir() + "/reader.db", "services.reader.listen": "127.0.0.1:0",
	}}
	start(t, t.TempDir(), r.values, r.service())
	r.publish(1)
	r.counts(1, 1)
	r.fail.Store(true)
	r.publish(2)
	r.counts(1, 2)
	eventually(t, "it is set aside", func() bool { _, out := r.run("deadletters list"); return strings.Contains(out, "no luck with 2") })
	r.fail.Store(false)
	if code, out := r.run("events reset reader " + orders.Name + " --group reader --to beginning --why x"); code != 0 {
		t.Fatalf("reset: %d %s", code, out)
	}
	r.counts(2, 2)
	if code, out := r.run("deadletters list --group reader"); code != 0 || !strings.Contains(out, "reader#1") {
		t.Errorf("set aside after the reset: %d %s", code, out)
	}
	if code, out := r.run("deadletters replay reader --all --key k2 --why luck"); code != 0 || !strings.Contains(out, "1 succeeded, 0 failed again, 0 left.") {
		t.Errorf("replay: %d %s", code, out)
	}
	r.counts(3, 2)
}

// TestReplayOfWhatCameAgain: what an ordered group had set aside before it was reset has come again since; to
// replay it has no second effect.
func TestReplayOfWhatCameAgain(t *testing.T) {
	t.Parallel()
	topic := orders
	topic.Ordered = true
	r := &reading{t: t, topic: topic, values: map[string]string{
		"broker_url": startBroker(t).url(), "services.reader.database_url": "sqlite:" + t.TempDir() + "/reader.db", "services.reader.listen": "127.0.0.1:0",
	}}
	r.fail.Store(true)
	start(t, t.TempDir(), r.values, r.service())
	r.publish(1)
	r.counts(0, 1)
	eventually(t, "it is set aside", func() bool { _, out := r.run("deadletters list"); return strings.Contains(out, "no luck with 1") })
	r.fail.Store(false)
	if code, out := r.run("events reset reader " + orders.Name + " --group reader --to beginning --why x"); code != 0 {
		t.Fatalf("reset: %d %s", code, out)
	}
	r.counts(1, 1)
	if code, out := r.run("deadletters replay reader --all --key k1 --why again"); code != 0 || !strings.Contains(out, "1 succeeded, 0 failed again, 0 left.") {
		t.Errorf("replay: %d %s", code, out)
	}
	r.publish(4)
	r.counts(2, 2)
}

// TestResetRefused: wrong command lines, and what a broker cannot do.
func TestResetRefused(t *testing.T) {
	t.Parallel()
	r := &reading{t: t, topic: orders, values: map[string]string{
		"broker_url": servertest.VHost(t), "services.reader.database_url": "sqlite:" + t.TempDir() + "/reader.db", "services.reader.listen": "127.0.0.1:0",
	}}
	if code, out := r.run("migrate"); code != 0 { // makes the database
		t.Fatalf("migrate: %d %s", code, out)
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"events reset reader order.placed.v1 --to beginning --group reader --why x":            {2, "this broker cannot begin again: it keeps no events that every group has handled; have the publisher send them again"},
		"events reset reader order.placed.v1 --to beginning --why x":                           {2, "reader reads order.placed.v1 in the groups reader, reader.second: say which with group"},
		"events reset reader nosuch --to beginning --why x":                                    {2, "reader has no subscription to nosuch : expected one of order.placed.v1 in group reader, "},
		"events reset reader order.placed.v1 --group reader --why x":                           {2, "--to is missing: expected beginning, a time"},
		"events reset reader order.placed.v1 --group reader --to soon --why x":                 {2, `--to "soon": expected an age as in 90m`},
		"events reset reader order.placed.v1 --to 2999-01-01T00:00:00Z --group reader --why x": {2, `--to "2999-01-01T00:00:00Z": expected a time that has passed`},
		"events reset reader order.placed.v1 --to beginning":                                   {2, "--why is missing"},
		"events reset reader":                       {2, "expected SERVICE and TOPIC, got 1"},
		"events reset other x --why x":              {2, `there is no service "other"`},
		"events list other":                         {2, `there is no service "other"`},
		"events resend reader --why x":              {2, "--since is missing"},
		"events resend reader --since 10m":          {2, "--why is missing"},
		"events resend reader --since 10m --why x":  {2, "reader keeps no events that were sent: set outbox.keep"},
		"events resend reader --since soon --why x": {2, `--since "soon": expected an age`},
		"events nosuch":                             {2, `unknown command "nosuch"`},
	} {
		if code, out := r.run(line); code != want.code || !strings.Contains(out, want.text) {
			t.Errorf("%s\n= %d %s\nwant %d with %s", line, code, out, want.code, want.text)
		}
	}
	r.values["outbox.keep"] = "10m"
	if code, out := r.run("events resend reader --since 10m --why broker"); code != 0 || out != "0 events are in the outbox again.\n" {
		t.Errorf("resend: %d %s", code, out)
	}
	r.values["broker_url"] = "nats://127.0.0.1:1"
	if code, out := r.run("events list"); code != 0 || !strings.Contains(out, "What waits is not known: reader: ") || !strings.Contains(out, "?") {
		t.Errorf("list without the broker: %d %s", code, out)
	}
	if code, out := r.run("events reset reader order.placed.v1 --to beginning --group reader --why x"); code != 1 || !strings.Contains(out, "nats://127.0.0.1:1") {
		t.Errorf("reset without the broker: %d %s", code, out)
	}
	r.values["broker_url"] = startBroker(t).url()
	code, out := r.run("events reset reader order.placed.v1 --to beginning --group reader --why x")
	if code != 0 || !strings.Contains(out, "No process of reader is there. The reset is written down: the group begins again at the next start.") {
		t.Errorf("reset without a process: %d %s", code, out)
	}
}
