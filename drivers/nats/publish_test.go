package nats_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/messaging/driver"
)

func messages(topic, prefix string, n int) []driver.Message {
	out := make([]driver.Message, n)
	for i := range out {
		out[i] = driver.Message{ID: fmt.Sprint(prefix, i), Topic: topic, Key: "k", Data: []byte("x")}
	}
	return out
}

// TestFailureKeepsOrder has a stream that refuses the second of three messages of a key. Were they
// sent together, the third would be stored before it.
func TestFailureKeepsOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	config := jetstream.StreamConfig{Name: "t", Subjects: []string{"t.*"}, MaxMsgSize: 500, AllowAtomicPublish: true}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.s.ClientURL()+"?atomic=true")
	defer closeNow(t, b)
	for _, n := range []int{5, 40} { // one by one, and a refused atomic batch
		prefix := fmt.Sprint("n", n, "-")
		batch := messages("t", prefix, n)
		batch[2].Data = make([]byte, 1000)
		before := storedIDs(t, js, "t")
		err := b.Publish(t.Context(), batch)
		partial, ok := errors.AsType[*driver.PartialError](err)
		if !ok || partial.Sent != 2 {
			t.Fatalf("Publish of %d messages, the third refused = %v, want a PartialError with Sent 2", n, err)
		}
		if got, want := storedIDs(t, js, "t"), slices.Concat(before, []string{prefix + "0", prefix + "1"}); !slices.Equal(got, want) {
			t.Errorf("the stream has %v, want %v", got, want)
		}
		config.MaxMsgSize = -1
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), batch); err != nil { // the whole again, as a relay may do
			t.Fatalf("Publish once more = %v, want nil", err)
		}
		want := slices.Clone(before)
		for _, m := range batch {
			want = append(want, m.ID)
		}
		if got := storedIDs(t, js, "t"); !slices.Equal(got, want) {
			t.Errorf("after the second try the stream has %v, want %v", got, want)
		}
		config.MaxMsgSize = 500
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPartialAcrossTopics: what was sent to the first topic counts, the failed one is named.
func TestPartialAcrossTopics(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	if _, err := admin(t, s.s.ClientURL()).CreateStream(t.Context(), jetstream.StreamConfig{Name: "full", Subjects: []string{"full.*"}, MaxMsgs: 1, Discard: jetstream.DiscardNew}); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	err := b.Publish(t.Context(), append(messages("roomy", "a", 3), messages("full", "b", 3)...))
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok || partial.Sent != 4 || !strings.Contains(err.Error(), "publish to full at nats://") {
		t.Errorf("Publish of 3 messages and 3 to a topic with room for one = %v, want a PartialError with Sent 4 that names the topic", err)
	}
}

// TestAtomicBatches looks at what the server stored: batches where they pay, of at most 500.
func TestAtomicBatches(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	for query, wants := range map[string]map[int]int{ // by messages: batches
		"?atomic=true":  {31: 0, 32: 1, 500: 1, 501: 1}, // the last of 501 goes alone
		"?atomic=false": {31: 0, 33: 0},
		"":              {34: 0},
	} {
		b := open(t, s.s.ClientURL()+query)
		for n, want := range wants {
			topic := fmt.Sprintf("t%d-%d", n, len(query))
			if err := b.Publish(t.Context(), messages(topic, "m", n)); err != nil {
				t.Fatal(err)
			}
			batches := make(map[string]bool)
			list := stored(t, js, topic)
			for _, m := range list {
				if id := m.Header.Get("Nats-Batch-Id"); id != "" {
					batches[id] = true
				}
			}
			if len(list) != n || len(batches) != want {
				t.Errorf("%s: %d messages were stored as %d in %d batches, want %d batches", query, n, len(list), len(batches), want)
			}
		}
		closeNow(t, b)
	}
}

// TestLargeBatch is more than the server stages at a time.
func TestLargeBatch(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.SyncAlways = false })
	b := open(t, s.s.ClientURL()+"?atomic=true")
	defer closeNow(t, b)
	batch := messages("t", "m", 40)
	for i := range batch {
		batch[i].Data = make([]byte, 900<<10)
	}
	if err := b.Publish(t.Context(), batch); err != nil {
		t.Fatalf("Publish of 36 MiB = %v, want nil", err)
	}
	if n := len(storedIDs(t, admin(t, s.s.ClientURL()), "t")); n != 40 {
		t.Errorf("the stream has %d messages, want 40", n)
	}
}

// TestServerLimit: a server may take less than driver.MaxSize.
func TestServerLimit(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	batch := messages("t", "m", 2)
	batch[1].Headers = driver.Headers{{Name: "a", Value: strings.Repeat("é", 12<<10)}} // 24 KiB, but 72 encoded
	if err := b.Publish(t.Context(), batch); !errors.Is(err, driver.ErrTooLarge) || !strings.Contains(err.Error(), `"m1"`) {
		t.Errorf("Publish of a message above max_payload = %v, want driver.ErrTooLarge that names it", err)
	}
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if ids := storedIDs(t, admin(t, s.s.ClientURL()), "t"); len(ids) != 0 {
		t.Errorf("the stream has %v, want nothing", ids)
	}
}

// TestPartitions: the subject depends on the key alone, in a way that other programs can compute,
// and spreads.
func TestPartitions(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	var batch []driver.Message
	for i, key := range []string{"", "a", "order-7", "a", "Ödön"} {
		batch = append(batch, driver.Message{ID: fmt.Sprint(i), Topic: "t.v1", Key: key})
	}
	if err := b.Publish(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(batch)) // by id: the order across keys is not promised
	for _, m := range stored(t, admin(t, s.s.ClientURL()), "t_v1") {
		got[m.Header.Get("Nats-Msg-Id")[0]-'0'] = m.Subject
	}
	if want := []string{"t.v1.p05", "t.v1.p12", "t.v1.p11", "t.v1.p12", "t.v1.p01"}; !slices.Equal(got, want) {
		t.Errorf("subjects are %v, want %v (FNV-1a of the key, modulo 16)", got, want)
	}
}

// TestDeletedStream: the topic is made again at the next try.
func TestDeletedStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	js := admin(t, s.s.ClientURL())
	b := open(t, s.s.ClientURL()+"?atomic=true")
	defer closeNow(t, b)
	for i, n := range []int{1, 40, 1} {
		err := b.Publish(t.Context(), messages("t", fmt.Sprint("r", i, "-"), n))
		if err != nil {
			err = b.Publish(t.Context(), messages("t", fmt.Sprint("r", i, "-"), n))
		}
		if err != nil {
			t.Errorf("round %d: the second Publish of %d after the stream was deleted = %v, want nil", i, n, err)
		}
		if err := js.DeleteStream(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
	}
}
