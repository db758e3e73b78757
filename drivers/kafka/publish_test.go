package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// stored returns the ids of a topic's messages by key, in log order, read by a plain client.
func stored(tb testing.TB, url, topic string) map[string][]string {
	tb.Helper()
	cl := plainClient(tb, url, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ends, err := kadm.NewClient(cl).ListEndOffsets(tb.Context(), topic)
	if err != nil {
		tb.Fatal(err)
	}
	var total, n int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	out := make(map[string][]string)
	for n < total {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			tb.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			for _, h := range r.Headers {
				if h.Key == "Kaptar-Id" {
					out[string(r.Key)] = append(out[string(r.Key)], string(h.Value))
				}
			}
		})
	}
	return out
}

func sized(topic, key, prefix string, n, size int) []driver.Message {
	list := make([]driver.Message, n)
	for i := range list {
		list[i] = driver.Message{ID: fmt.Sprint(prefix, i), Topic: topic, Key: key, Data: make([]byte, size)}
	}
	return list
}

func ids(msgs []driver.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = m.ID
	}
	return out
}

// TestFailureKeepsOrder: whatever the broker refuses, nothing later of its key is stored by the
// same call, and sending it all again leaves first copies in order.
func TestFailureKeepsOrder(t *testing.T) {
	t.Parallel()
	for _, failure := range []*kerr.Error{kerr.UnknownServerError, kerr.InvalidRecord, kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicasAfterAppend} {
		for _, skip := range []int{0, 1, 2} {
			c, url := fake(t)
			b := open(t, url)
			if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
			seen := 0
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: failure, Count: 1, When: func(kmsg.Request) bool {
				seen++
				return seen > skip
			}})
			msgs := sized("t", "k", "m", 12, 900<<10) // two fill a batch
			err := b.Publish(t.Context(), msgs)
			have := stored(t, url, "t")["k"]
			if want := ids(msgs)[:len(have)]; failure != kerr.NotEnoughReplicasAfterAppend && !slices.Equal(have, want) {
				t.Errorf("%v at request %d: stored are %v, want the first ones in order", failure, skip, have)
			}
			sent := 0
			if partial, ok := errors.AsType[*driver.PartialError](err); ok {
				sent = partial.Sent
			} else if err == nil {
				sent = len(msgs)
			}
			if sent > len(have) {
				t.Errorf("%v at request %d: Publish says %d are stored, there are %v", failure, skip, sent, have)
			}
			if err == nil && kerr.IsRetriable(failure) == false {
				t.Errorf("%v at request %d: Publish = nil, want the error", failure, skip)
			}
			if err != nil && !errors.Is(err, failure) {
				t.Errorf("%v at request %d: Publish = %v, want that in its chain", failure, skip, err)
			}
			publish(t, b, msgs[sent:]...)
			var firsts []string
			for _, id := range stored(t, url, "t")["k"] {
				if !slices.Contains(firsts, id) {
					firsts = append(firsts, id)
				}
			}
			if !slices.Equal(firsts, ids(msgs)) {
				t.Errorf("%v at request %d: after sending again the first copies are %v, want all in order", failure, skip, firsts)
			}
			closeNow(t, b)
		}
	}
}

// TestPartialError: the count is of the batch's first messages, over all topics.
func TestPartialError(t *testing.T) {
	t.Parallel()
	c, url := fake(t)
	b := open(t, url)
	defer closeNow(t, b)
	for _, topic := range []string{"good", "bad"} {
		if err := b.Declare(t.Context(), driver.Subscription{Topic: topic}); err != nil {
			t.Fatal(err)
		}
	}
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "bad", Err: kerr.PolicyViolation, Count: -1})
	batch := append(append(messages("good", "a", 3), messages("bad", "b", 2)...), messages("good", "c", 1)...)
	err := b.Publish(t.Context(), batch)
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok && err == nil || ok && partial.Sent > 3 || !errors.Is(err, kerr.PolicyViolation) || !strings.Contains(err.Error(), "publish to bad at kafka://") {
		t.Errorf("Publish with the fourth message refused = %v, want at most 3 sent, the topic and the cause", err)
	}
	if err := b.Publish(t.Context(), messages("bad", "b", 2)); err == nil || errors.As(err, new(*driver.PartialError)) {
		t.Errorf("Publish with the first message refused = %v, want an error that is no PartialError", err)
	}
	fault.Remove()
	publish(t, b, batch...)
}

// TestPublishEnds: a broker that takes the connection and never acknowledges does not hold Publish
// beyond its deadline.
func TestPublishEnds(t *testing.T) {
	t.Parallel()
	c, url := fake(t)
	b := open(t, url)
	defer closeNow(t, b)
	publish(t, b, messages("t", "m", 1)...)
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := b.Publish(ctx, messages("t", "n", 3)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish without enough replicas = %v, want context.DeadlineExceeded", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("Publish with a deadline of 500ms took %v", took)
	}
	fault.Remove()
	publish(t, b, messages("t", "o", 3)...)
}

// TestLimits: a message as large as the contract allows goes, and a topic's own smaller limit is
// told before anything is sent.
func TestLimits(t *testing.T) {
	t.Parallel()
	url := servertest.Shared(t, servers.Kafka).URL()
	b := open(t, url)
	defer closeNow(t, b)
	largest := driver.Message{ID: "1", Topic: "largest", Key: "k"}
	largest.Data = make([]byte, driver.MaxSize-largest.Size())
	publish(t, b, largest, largest, largest)
	small := "1000"
	if _, err := kadm.NewClient(plainClient(t, url)).CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": &small}, "small"); err != nil {
		t.Fatal(err)
	}
	big := driver.Message{ID: "big", Topic: "small", Data: make([]byte, 1000)}
	if err := b.Publish(t.Context(), append(sized("small", "k", "no", 1, 10), big)); !errors.Is(err, driver.ErrTooLarge) || !strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("Publish of 1000 bytes to a topic that takes 1000 with framing = %v, want driver.ErrTooLarge and the setting", err)
	}
	many := sized("small", "k", "m", 50, 500) // batches must keep the limit too
	publish(t, b, many...)
	if got := stored(t, url, "small")["k"]; !slices.Equal(got, ids(many)) {
		t.Errorf("stored are %v, want only %v", got, ids(many))
	}
}

// TestForeignClients: records of programs without kaptar are understood, and ours are CloudEvents
// to them, on the partition where their clients look for the key.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"kfake": second(fake(t)), "real": servertest.Shared(t, servers.Kafka).URL()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, url)
			defer closeNow(t, b)
			const topic = "foreign"
			if err := b.Declare(t.Context(), driver.Subscription{Topic: topic}); err != nil {
				t.Fatal(err)
			}
			cl := plainClient(t, url, kgo.ConsumeTopics(topic), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
			theirs := &kgo.Record{Topic: topic, Key: []byte("order-7"), Value: []byte(`{"id":7}`), Headers: []kgo.RecordHeader{
				{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte("e-1")}, {Key: "ce_type", Value: []byte("order.placed.v1")},
				{Key: "content-type", Value: []byte("application/json")},
			}}
			if err := cl.ProduceSync(t.Context(), theirs).FirstErr(); err != nil {
				t.Fatal(err)
			}
			got, _ := start(t, b, driver.Subscription{Topic: topic, Group: "g", From: driver.FromBeginning})
			d := next(t, got)
			if d.ID != "e-1" || d.Key != "order-7" || string(d.Data) != `{"id":7}` || d.Headers.Get("ce-type") != "order.placed.v1" || d.Headers.Get("content-type") != "application/json" || len(d.Headers) != 4 {
				t.Errorf("a foreign record came as %+v", d.Message)
			}
			ack(t, d)
			publish(t, b, driver.Message{ID: "e-2", Topic: topic, Key: "order-7", Data: []byte("x"), Headers: driver.HeadersOf(map[string]string{"ce-id": "e-2", "ce-source": "shop"})})
			var ours *kgo.Record
			for ours == nil || ours.Offset == 0 {
				for _, r := range cl.PollFetches(t.Context()).Records() {
					ours = r
				}
			}
			wire := make(map[string]string)
			for _, h := range ours.Headers {
				wire[h.Key] = string(h.Value)
			}
			if ours.Partition != theirs.Partition || len(wire) != 2 || wire["ce_id"] != "e-2" || wire["ce_source"] != "shop" {
				t.Errorf("our record is on partition %d with headers %v, want partition %d, ce_id and ce_source", ours.Partition, wire, theirs.Partition)
			}
		})
	}
}
