package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestSessionTimeout: how long a killed member keeps its partitions, and what Reset says to wait.
func TestSessionTimeout(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]time.Duration{time.Second: 6 * time.Second, 0: 30 * time.Second, time.Hour: 5 * time.Minute} {
		if got := (Options{AckWait: wait}).withDefaults().sessionTimeout(); got != want {
			t.Errorf("AckWait %v: the session timeout is %v, want %v", wait, got, want)
		}
	}
}

// BenchmarkMember is what a record costs above the client, from its fetch to its Ack. It needs no
// broker.
func BenchmarkMember(b *testing.B) {
	const together = 256
	records := make([]*kgo.Record, together)
	for i := range records {
		id := fmt.Sprintf("backlog-18bdc7f9d3b9-%d", i)
		records[i] = &kgo.Record{Topic: "bench", Partition: 3, Key: fmt.Appendf(nil, "customer-%d", i%100), Value: make([]byte, 200), Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte(id)}, {Key: "ce_type", Value: []byte("bench.event.v1")}, {Key: "content-type", Value: []byte("application/json")},
		}}
	}
	broker := &Broker{opts: (&Options{}).withDefaults(), attempts: map[topicPartition]map[int64]int32{}}
	m := newMember(broker, driver.Subscription{Topic: "bench", Group: "g", MaxInFlight: 512}, "bench")
	var err error
	if m.cl, err = kgo.NewClient(kgo.SeedBrokers("127.0.0.1:9")); err != nil { // it has nothing to ask
		b.Fatal(err)
	}
	defer m.cl.Close()
	m.assigned(b.Context(), nil, map[string][]int32{"bench": {3}})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var d decoder
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range records {
			r.Offset = offset
			offset++
		}
		m.receive(ctx, kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "bench", Partitions: []kgo.FetchPartition{{Partition: 3, Records: records}}}}}})
		for range records {
			l, r, _, err := m.next(m.clock())
			if l == nil || err != nil {
				b.Fatalf("no record is there: %v", err)
			}
			one := driver.Delivery{Message: d.decode("bench", r), Attempt: int(l.attempt), Acker: l}
			if err := one.Ack(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/together, "ns/message")
}
