package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// plainClient is a client without the driver, for looking behind it.
func plainClient(tb testing.TB, url string, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(strings.TrimPrefix(url, "kafka://"), ",")...))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cl.Close)
	return cl
}

func messages(topic, prefix string, n int) []driver.Message {
	list := make([]driver.Message, n)
	for i := range list {
		list[i] = driver.Message{ID: fmt.Sprint(prefix, i), Topic: topic, Key: "k", Data: []byte("x")}
	}
	return list
}

func publish(tb testing.TB, b driver.Broker, msgs ...driver.Message) {
	tb.Helper()
	if err := b.Publish(tb.Context(), msgs); err != nil {
		tb.Fatalf("Publish of %d messages = %v, want nil", len(msgs), err)
	}
}

// start subscribes in the background. What is delivered comes from the channel; stop cancels and
// waits for Subscribe's error.
func start(tb testing.TB, b driver.Broker, sub driver.Subscription) (got chan driver.Delivery, stop func() error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	got = make(chan driver.Delivery, 100_000)
	result := make(chan error, 1)
	go func() { result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { got <- d }) }()
	stop = func() error {
		cancel()
		err := <-result
		result <- err
		return err
	}
	tb.Cleanup(func() { _ = stop() })
	return got, stop
}

func next(tb testing.TB, got <-chan driver.Delivery) driver.Delivery {
	tb.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(30 * time.Second):
		tb.Fatal("no delivery within 30s")
		panic("unreachable")
	}
}

func ack(tb testing.TB, d driver.Delivery) {
	tb.Helper()
	if err := d.Ack(context.Background()); err != nil {
		tb.Errorf("Ack of %s = %v, want nil", d.ID, err)
	}
}

// until waits for a condition that no channel tells.
func until(tb testing.TB, what string, done func() bool) { tb.Helper(); waittest.Until(tb, what, done) }

func TestOpen(t *testing.T) {
	t.Parallel()
	_, secure := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "ada", "right"))
	host := strings.TrimPrefix(secure, "kafka://")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, plain := fake(t)
	drivertest.Opening(t, func(ctx context.Context, url string) (driver.Broker, error) { return kafka.Open(ctx, url, nil) }, map[string]string{
		"kafka://ada:secret@" + host:                         "password",
		"kafka://" + host:                                    "names no user",
		"kafka://ada:secret@" + host + "?sasl=scram-sha-256": "password",
		"kafka://ada:secret@h?partition=1":                   `unknown parameter "partition"`,
		"kafka://h?retention=week":                           `retention="week"`,
		"kafka://h?ack_wait=1ms":                             "100ms",
		"kafka://h?partitions=0":                             "1 to 10000",
		"kafka://h?tls=perhaps":                              "true or false",
		"kafka://ada:secret@h?sasl=gssapi":                   "scram-sha-512",
		"kafka://h?sasl=plain":                               "user:password",
		"kafka://h?%zz":                                      "parameters",
		"kafka://ada:secret%zz@h":                            "xxxxx",
		"kafka://":                                           "host",
		"kafka://h1,,h2":                                     "host",
		"kafka://h/topic":                                    "host:port",
	}, map[string]string{
		"kafka://ada:secret@127.0.0.1:1":     "kafka://ada:xxxxx@127.0.0.1:1",
		"kafka://" + silent.Addr().String():  "no host answers",
		"kafka://ada:secret@nowhere.invalid": "nowhere.invalid",
		plain + "?tls=true":                  "tls?",
	})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	const password = "p@ss/w%,rd" // all that needs escaping
	for query, method := range map[string]string{"": "PLAIN", "?sasl=plain": "PLAIN", "?sasl=scram-sha-256": "SCRAM-SHA-256", "?sasl=scram-sha-512": "SCRAM-SHA-512"} {
		_, url := fake(t, kfake.EnableSASL(), kfake.Superuser(method, "ada", password))
		b, err := kafka.Open(t.Context(), strings.Replace(url, "kafka://", "kafka://ada:p%40ss%2Fw%25%2Crd@", 1)+query, nil)
		if err != nil {
			t.Errorf("%q: Open = %v, want nil", query, err)
			continue
		}
		publish(t, b, messages("t", "m", 1)...)
		got, stop := start(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning})
		ack(t, next(t, got))
		if err := stop(); err != nil {
			t.Errorf("%q: Subscribe = %v, want nil", query, err)
		}
		closeNow(t, b)
	}
}

// TestFencedBrokers: a cluster that has not heard of its brokers for a while makes the topic later.
// What it says is Kafka 3.9's.
func TestFencedBrokers(t *testing.T) {
	t.Parallel()
	cluster, url := fake(t)
	var asked atomic.Int64
	cluster.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if asked.Add(1) > 2 {
			return nil, nil, false
		}
		answer := r.ResponseKind().(*kmsg.CreateTopicsResponse)
		topic := kmsg.NewCreateTopicsResponseTopic()
		topic.Topic, topic.ErrorCode = r.(*kmsg.CreateTopicsRequest).Topics[0].Topic, kerr.InvalidReplicationFactor.Code
		topic.ErrorMessage = new("Unable to replicate the partition 1 time(s): All brokers are currently fenced.")
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
	b := open(t, url)
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil || asked.Load() != 3 {
		t.Errorf("Declare = %v after %d requests, want nil after the third", err, asked.Load())
	}
}

func TestTopicSettings(t *testing.T) {
	t.Parallel()
	_, three := fake(t, kfake.NumBrokers(3))
	_, five := fake(t, kfake.NumBrokers(5))
	for _, c := range []struct {
		url, query         string
		partitions, copies int
		config             map[string]string
	}{
		{three, "", 16, 3, map[string]string{"retention.ms": "604800000", "min.insync.replicas": "2", "unclean.leader.election.enable": "false", "max.message.bytes": "2097152"}},
		{five, "", 16, 3, map[string]string{"min.insync.replicas": "2"}},
		{three, "?partitions=3&replicas=1&retention=1h", 3, 1, map[string]string{"retention.ms": "3600000", "min.insync.replicas": "1"}},
		{servertest.Shared(t, servers.Kafka).URL(), "?partitions=2&retention=1h", 2, 1, map[string]string{"retention.ms": "3600000", "min.insync.replicas": "1", "max.message.bytes": "2097152"}},
	} {
		b, err := kafka.Open(t.Context(), c.url+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("settings-%d-%d", c.partitions, c.copies)
		if err := b.Declare(t.Context(), driver.Subscription{Topic: name}); err != nil {
			t.Fatal(err)
		}
		adm := kadm.NewClient(plainClient(t, c.url))
		topics, err := adm.ListTopics(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if p := topics[name].Partitions; len(p) != c.partitions || len(p[0].Replicas) != c.copies {
			t.Errorf("%q made %d partitions with %d copies, want %d with %d", c.query, len(p), len(p[0].Replicas), c.partitions, c.copies)
		}
		have, err := adm.DescribeTopicConfigs(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		values := make(map[string]string)
		for _, e := range have[0].Configs {
			values[e.Key] = e.MaybeValue()
		}
		for key, want := range c.config {
			if values[key] != want && !(key == "min.insync.replicas" && want == "1" && values[key] == "") {
				t.Errorf("%q made a topic with %s=%s, want %s", c.query, key, values[key], want)
			}
		}
		closeNow(t, b)
	}
}

// TestHealth: a cluster that is away makes Publish and Subscribe fail soon and Close end, and is
// noticed when it is back.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Kafka)
	b := open(t, s.URL())
	if err := b.Healthy(); err != nil {
		t.Errorf("Healthy of a new Broker = %v, want nil", err)
	}
	var client *kgo.Client
	if !b.As(&client) || client.Ping(t.Context()) != nil || b.As(new(string)) {
		t.Error("As does not give the client, or gives a string")
	}
	publish(t, b, messages("t", "m", 1)...)
	got, stop := start(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning})
	held := next(t, got)
	kill(t, s)
	begun := time.Now()
	if err := b.Publish(t.Context(), messages("t", "n", 3)); err == nil {
		t.Error("Publish to a dead broker = nil, want an error")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Publish to a dead broker took %v, want less than 5s", took)
	}
	until(t, "the loss to be noticed", func() bool { return b.Healthy() != nil })
	if err := b.Healthy(); !strings.Contains(err.Error(), "since 20") || !strings.Contains(err.Error(), strings.TrimPrefix(s.URL(), "kafka://")) {
		t.Errorf("Healthy of a dead broker = %q, want the address and since when", err)
	}
	if err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "h", From: driver.FromNow}, func(driver.Delivery) {}); err == nil {
		t.Error("Subscribe at a dead broker = nil, want an error")
	}
	restart(t, s)
	until(t, "the return to be noticed", func() bool { return b.Healthy() == nil })
	if err := held.Ack(t.Context()); err != nil {
		t.Logf("Ack of what was held through the restart: %v", err) // right: the group forgot this member
	}
	publish(t, b, messages("t", "o", 1)...)
	for next(t, got).ID != "o0" { // n0 to n2 may or may not be stored
	}
	kill(t, s)
	begun = time.Now()
	closeNow(t, b)
	if err := stop(); err != nil {
		t.Errorf("Subscribe = %v after Close, want nil", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("Close with a dead broker took %v, want a few seconds", took)
	}
	if err := b.Healthy(); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Healthy after Close = %v, want driver.ErrClosed", err)
	}
}
