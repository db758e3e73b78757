package nats_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// admin is a plain JetStream client, for looking behind the driver.
func admin(tb testing.TB, url string) jetstream.JetStream {
	tb.Helper()
	nc, err := natsgo.Connect(url, natsgo.MaxReconnects(-1))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func stored(tb testing.TB, js jetstream.JetStream, stream string) []*jetstream.RawStreamMsg {
	tb.Helper()
	s, err := js.Stream(tb.Context(), stream)
	if err != nil {
		tb.Fatalf("stream %s: %v", stream, err)
	}
	state := s.CachedInfo().State
	var out []*jetstream.RawStreamMsg
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(tb.Context(), seq)
		if err != nil {
			tb.Fatalf("message %d of stream %s: %v", seq, stream, err)
		}
		out = append(out, m)
	}
	return out
}

func storedIDs(tb testing.TB, js jetstream.JetStream, stream string) []string {
	tb.Helper()
	var out []string
	for _, m := range stored(tb, js, stream) {
		out = append(out, m.Header.Get("Nats-Msg-Id"))
	}
	return out
}

// receive subscribes and returns the first n messages, acknowledged.
func receive(tb testing.TB, b driver.Broker, sub driver.Subscription, n int) []driver.Delivery {
	tb.Helper()
	ctx, stop := context.WithTimeout(tb.Context(), 30*time.Second)
	defer stop()
	var got []driver.Delivery
	err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
		if err := d.Ack(ctx); err != nil {
			tb.Errorf("Ack of %s = %v", d.ID, err)
		}
		if got = append(got, d); len(got) == n {
			stop()
		}
	})
	if err != nil || len(got) < n {
		tb.Fatalf("Subscribe = %v after %d messages, want nil after %d", err, len(got), n)
	}
	return got
}

func TestOpen(t *testing.T) {
	t.Parallel()
	plain := startServer(t, func(o *server.Options) { o.JetStream = false })
	secure := startServer(t, func(o *server.Options) { o.Username, o.Password = "ada", "right" })
	host := func(s *testServer) string { return strings.TrimPrefix(s.s.ClientURL(), "nats://") }
	drivertest.Opening(t, func(ctx context.Context, url string) (driver.Broker, error) { return openBroker(ctx, url, nil) }, map[string]string{
		"nats://ada:secret@" + host(secure): "Authorization",
		plain.s.ClientURL():                 "--jetstream",
		"nats://ada:secret@h?max_aeg=1h":    `unknown parameter "max_aeg"`,
		"nats://h?max_age=week":             `max_age="week"`,
		"nats://h?ack_wait=1ms":             "100ms or more",
		"nats://h?replicas=6":               "1 to 5",
		"nats://h?atomic=perhaps":           "true or false",
		"nats://h?%zz":                      "parameters",
		"nats://ada:secret%zz@h":            "xxxxx",
	}, map[string]string{
		"nats://ada:secret@127.0.0.1:1,127.0.0.1:2": "nats://ada:xxxxx@127.0.0.1:1,127.0.0.1:2",
		"nats://ada:secret@no-such-host.invalid":    "nats://ada:xxxxx@no-such-host.invalid",
	})
}

func TestStreamSettings(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	for query, want := range map[string]struct {
		topic, stream         string
		age, window, ackPause time.Duration
	}{
		"": {"order.placed.v1", "order_placed_v1", 7 * 24 * time.Hour, 10 * time.Minute, 30 * time.Second},
		"?max_age=1h&duplicate_window=1m&ack_wait=5s": {"mail_Send", "mail=Send", time.Hour, time.Minute, 5 * time.Second},
		"?max_age=5m": {"short", "short", 5 * time.Minute, 5 * time.Minute, 30 * time.Second},
	} {
		b, err := openBroker(t.Context(), s.s.ClientURL()+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Declare(t.Context(), driver.Subscription{Topic: want.topic}); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), want.stream)
		if err != nil {
			t.Fatalf("topic %s: stream %s: %v", want.topic, want.stream, err)
		}
		c := stream.CachedInfo().Config
		if c.MaxAge != want.age || c.Duplicates != want.window || c.Replicas != 1 || c.Storage != jetstream.FileStorage ||
			c.Retention != jetstream.LimitsPolicy || !slices.Equal(c.Subjects, []string{want.topic + ".*"}) {
			t.Errorf("%q made stream %+v, want age %v, window %v, one file copy with limits, subject %s.*", query, c, want.age, want.window, want.topic)
		}
		if err := b.Publish(t.Context(), []driver.Message{{ID: "x", Topic: want.topic}}); err != nil {
			t.Fatal(err)
		}
		receive(t, b, driver.Subscription{Topic: want.topic, Group: "g.1", From: driver.FromBeginning}, 1)
		consumer, err := js.Consumer(t.Context(), want.stream, "g_1")
		if err != nil {
			t.Fatal(err)
		}
		if k := consumer.CachedInfo().Config; k.AckWait != want.ackPause || k.AckPolicy != jetstream.AckExplicitPolicy || k.MaxDeliver != -1 {
			t.Errorf("%q made consumer %+v, want ack wait %v, explicit acks, deliveries without limit", query, k, want.ackPause)
		}
		closeNow(t, b)
	}
}

func TestAckWaitOfKnownGroupChanges(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	for _, wait := range []string{"10s", "20s"} {
		b, err := openBroker(t.Context(), s.s.ClientURL()+"?ack_wait="+wait, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), []driver.Message{{ID: wait, Topic: "t"}}); err != nil {
			t.Fatal(err)
		}
		receive(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}, 1)
		closeNow(t, b)
		c, err := admin(t, s.s.ClientURL()).Consumer(t.Context(), "t", "g")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CachedInfo().Config.AckWait.String(); got != wait {
			t.Errorf("the consumer has ack wait %s, want %s", got, wait)
		}
	}
}

// TestForeignStream: a stream that exists is left as it is, and one that is no topic is refused.
func TestForeignStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	for _, c := range []jetstream.StreamConfig{
		{Name: "mine", Subjects: []string{"mine.*"}, MaxAge: time.Minute},
		{Name: "other", Subjects: []string{"other.>"}},
	} {
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, s.s.ClientURL()+"?atomic=true")
	defer closeNow(t, b)
	batch := make([]driver.Message, 40) // the stream takes no atomic batches
	for i := range batch {
		batch[i] = driver.Message{ID: fmt.Sprint("m", i), Topic: "mine"}
	}
	if err := b.Publish(t.Context(), batch); err != nil {
		t.Errorf("Publish to a stream without atomic batches = %v, want nil", err)
	}
	if n := len(stored(t, js, "mine")); n != 40 {
		t.Errorf("the stream has %d messages, want 40", n)
	}
	stream, err := js.Stream(t.Context(), "mine")
	if err != nil {
		t.Fatal(err)
	}
	if age := stream.CachedInfo().Config.MaxAge; age != time.Minute {
		t.Errorf("the stream's max age became %v, want it to stay at 1m", age)
	}
	err = b.Declare(t.Context(), driver.Subscription{Topic: "other"})
	if err == nil || !strings.Contains(err.Error(), `"other.>"`) || !strings.Contains(err.Error(), `"other.*"`) {
		t.Errorf("Declare of a topic whose stream has other subjects = %v, want both in the error", err)
	}
}

// TestForeignPublisher: a CloudEvent in binary mode from a program without kaptar.
func TestForeignPublisher(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "order.placed"}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []natsgo.Header{
		{"ce-id": {"ev-1"}, "ce-subject": {"100%25"}, "Content-Type": {"application/json"}, "Ce-Type": {"a%20b %zz"}},
		{"ce-id": {"ev-2"}, "ce-partitionkey": {"p"}, "ce-subject": {"s"}},
		{"Nats-Msg-Id": {"ev-3"}, "ce-id": {"other"}},
		nil,
	} {
		if _, err := js.PublishMsg(t.Context(), &natsgo.Msg{Subject: "order.placed.x", Header: h, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, d := range receive(t, b, driver.Subscription{Topic: "order.placed", Group: "g", From: driver.FromBeginning}, 4) {
		got = append(got, fmt.Sprintf("id=%s key=%s %v %s", d.ID, d.Key, d.Headers.Map(), d.Data))
	}
	want := []string{
		"id=ev-1 key=100% map[ce-id:ev-1 ce-subject:100% ce-type:a b %zz content-type:application/json] {}",
		"id=ev-2 key=p map[ce-id:ev-2 ce-partitionkey:p ce-subject:s] {}",
		"id=ev-3 key= map[ce-id:other] {}",
		"id=order_placed:4 key= map[] {}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestHealthy stops and starts the server and waits for the driver to notice, both times.
func TestHealthy(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, strings.Replace(s.s.ClientURL(), "nats://", "nats://ada:secret@", 1))
	defer closeNow(t, b)
	if err := b.Healthy(); err != nil {
		t.Errorf("Healthy = %v with a running server, want nil", err)
	}
	s.stop()
	until(t, "the loss to be noticed", func() bool { return b.Healthy() != nil })
	err := b.Healthy()
	if !strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "secret") {
		t.Errorf("Healthy = %q without a server, want its address and no password", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	for name, call := range map[string]func() error{
		"Publish": func() error { return b.Publish(ctx, []driver.Message{{ID: "x", Topic: "t"}}) },
		"Declare": func() error { return b.Declare(ctx, driver.Subscription{Topic: "t"}) },
		"Subscribe": func() error {
			return b.Subscribe(ctx, driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow}, func(driver.Delivery) {})
		},
	} {
		if call() == nil {
			t.Errorf("%s without a server = nil, want an error", name)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("calls without a server took %v to fail, want about none", took)
	}
	s.start(t)
	until(t, "the reconnection", func() bool { return b.Healthy() == nil })
}

// TestInProcess: the options reach the connection, which needs no port then.
func TestInProcess(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.DontListen = true })
	b, err := openBroker(t.Context(), "nats://embedded", &nats.Options{Connect: []natsgo.Option{natsgo.InProcessServer(s.s)}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), []driver.Message{{ID: "x", Topic: "t"}}); err != nil {
		t.Errorf("Publish in process = %v, want nil", err)
	}
}

func until(tb testing.TB, what string, done func() bool) { tb.Helper(); waittest.Until(tb, what, done) }
