package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// keyed makes messages with the ids 0, 1, … and these keys.
func keyed(topic string, keys ...string) []driver.Message {
	out := make([]driver.Message, len(keys))
	for i, key := range keys {
		out[i] = driver.Message{ID: fmt.Sprint(i), Topic: topic, Key: key, Data: []byte("x")}
	}
	return out
}

// lastSeq returns how many messages a stream has got.
func lastSeq(t *testing.T, js jetstream.JetStream, stream string) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// TestPipelined keeps the server's answers back: what is stored then was sent without waiting for
// one.
func TestPipelined(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	p := servertest.NewProxy(t, strings.TrimPrefix(s.s.ClientURL(), "nats://"))
	js := admin(t, s.s.ClientURL())
	b := open(t, "nats://"+p.Addr())
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range 90 {
		keys = append(keys, fmt.Sprint("k", i%30))
	}
	batch := keyed("t", keys...)
	p.Keep()
	result := make(chan error, 1)
	go func() { result <- b.Publish(t.Context(), batch) }()
	until(t, "the first of each key", func() bool { return lastSeq(t, js, "t") >= 30 })
	<-p.Held()
	if n := lastSeq(t, js, "t"); n != 30 {
		t.Errorf("%d of 90 messages with 30 keys were sent without an answer, want 30: the first of each", n)
	}
	p.Release()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	byKey := make(map[string][]string)
	for _, m := range stored(t, js, "t") {
		key := m.Header.Get("Kaptar-Key")
		byKey[key] = append(byKey[key], m.Header.Get("Nats-Msg-Id"))
	}
	for i := range 30 {
		if got, want := byKey[fmt.Sprint("k", i)], []string{fmt.Sprint(i), fmt.Sprint(i + 30), fmt.Sprint(i + 60)}; !slices.Equal(got, want) {
			t.Errorf("key k%d has the messages %v, want %v", i, got, want)
		}
	}
}

// TestPartialAcrossKeys: of messages on their way together the second is refused. What follows with
// its key is not sent, and only what is before it counts, whatever else was stored.
func TestPartialAcrossKeys(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "t", Subjects: []string{"t.*"}, MaxMsgSize: 500}); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	batch := keyed("t", "a", "b", "c", "b", "d", "b")
	batch[1].Data = make([]byte, 1000)
	err := b.Publish(t.Context(), batch)
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok || partial.Sent != 1 {
		t.Errorf("Publish of 6 messages whose second is refused = %v, want a PartialError with Sent 1", err)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); !ok || api.ErrorCode != 10054 {
		t.Errorf("Publish = %v, want the server's error 10054 in its chain", err)
	}
	if got, want := storedIDs(t, js, "t"), []string{"0", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("the stream has %v, want %v", got, want)
	}
	batch[0].Data = make([]byte, 1000)
	batch[0].ID = "x"
	if err = b.Publish(t.Context(), batch); err == nil {
		t.Error("Publish whose first message is refused = nil, want an error")
	} else if _, ok := errors.AsType[*driver.PartialError](err); ok {
		t.Errorf("Publish whose first message is refused = %v, want no PartialError", err)
	}
}

// TestLateAnswer: somebody answers to a message whose Publish is over. That is no answer to the
// next one.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "t", Subjects: []string{"t.*"}, MaxMsgSize: 500}); err != nil {
		t.Fatal(err)
	}
	nc := js.Conn()
	seen, err := nc.SubscribeSync("t.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), keyed("t", "a")); err != nil {
		t.Fatal(err)
	}
	msg, err := seen.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range []*natsgo.Msg{{Data: []byte(`{"stream":"t","seq":1}`)}, {Data: []byte("well done")}} {
		answer.Subject = msg.Reply
		if err := nc.PublishMsg(answer); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil { // the server has them before the next message
		t.Fatal(err)
	}
	large := keyed("t", "a")
	large[0].ID, large[0].Data = "large", make([]byte, 1000)
	if err := b.Publish(t.Context(), large); err == nil || !strings.Contains(err.Error(), "10054") && !strings.Contains(err.Error(), "size exceeds") {
		t.Errorf("Publish of a message that the stream refuses = %v, want the server's refusal", err)
	}
	if err := b.Publish(t.Context(), []driver.Message{{ID: "y", Topic: "t"}}); err != nil {
		t.Errorf("Publish after an answer that is none = %v, want nil", err)
	}
}

// TestNobodyAnswers: while the leader of a stream changes nobody answers, for a moment.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	p := servertest.NewProxy(t, strings.TrimPrefix(s.s.ClientURL(), "nats://"))
	b := open(t, "nats://"+p.Addr())
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), keyed("t", "first")); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	p.Keep()
	result := make(chan error, 1)
	go func() { result <- b.Publish(t.Context(), keyed("t", "a", "b", "a", "b")) }()
	<-p.Held() // that nobody is there
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "t", Subjects: []string{"t.*"}}); err != nil {
		t.Fatal(err)
	}
	p.Release()
	if err := <-result; err != nil {
		t.Errorf("Publish whose topic came back meanwhile = %v, want nil", err)
	}
	if got := storedIDs(t, js, "t"); len(got) != 4 || slices.Index(got, "0") > slices.Index(got, "2") || slices.Index(got, "1") > slices.Index(got, "3") {
		t.Errorf("the stream has %v, want 0 before 2 and 1 before 3", got)
	}
}

// TestSilence: the server that a message went to is gone, and the connection to another is intact.
// Publish does not wait for that until the caller's deadline.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	p := servertest.NewProxy(t, strings.TrimPrefix(s.s.ClientURL(), "nats://"))
	b := open(t, "nats://"+p.Addr())
	defer closeNow(t, b)
	nats.SetAckTimeout(b.backend, 100*time.Millisecond)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	p.Keep()
	defer p.Release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	err := b.Publish(ctx, keyed("t", "a", "b"))
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "silent") || took > 30*time.Second {
		t.Errorf("Publish to a silent server = %v after %v, want an error that says so, soon", err, took)
	}
}
