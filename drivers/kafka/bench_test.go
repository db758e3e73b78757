package kafka_test

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// BenchmarkPublish compares the driver with a bare client that waits for the same batches.
func BenchmarkPublish(b *testing.B) {
	url := servertest.Shared(b, servers.Kafka).URL()
	for _, batch := range []int{1, 16, 500} {
		b.Run(fmt.Sprintf("driver/batch=%d", batch), func(b *testing.B) {
			broker := open(b, url)
			defer closeNow(b, broker)
			drivertest.BenchmarkPublish(b, broker, batch)
		})
		b.Run(fmt.Sprintf("bare/batch=%d", batch), func(b *testing.B) {
			cl := plainClient(b, url, kgo.ProducerLinger(0))
			topic := bareTopic(b, cl)
			n := 0
			for b.Loop() {
				if err := cl.ProduceSync(b.Context(), bareBatch(topic, n, batch)...).FirstErr(); err != nil {
					b.Fatal(err)
				}
				n += batch
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkConsume compares the driver with a bare group consumer that commits at the end.
func BenchmarkConsume(b *testing.B) {
	url := servertest.Shared(b, servers.Kafka).URL()
	b.Run("driver", func(b *testing.B) {
		broker := open(b, url)
		defer closeNow(b, broker)
		drivertest.BenchmarkConsume(b, broker)
	})
	b.Run("bare", func(b *testing.B) {
		const total = 10_000
		cl := plainClient(b, url)
		topic := bareTopic(b, cl)
		if err := cl.ProduceSync(b.Context(), bareBatch(topic, 0, total)...).FirstErr(); err != nil {
			b.Fatal(err)
		}
		rounds := 0
		for b.Loop() {
			member := plainClient(b, url, kgo.ConsumerGroup(rand.Text()), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
			for n := 0; n < total; {
				n += len(member.PollFetches(b.Context()).Records())
			}
			if err := member.CommitUncommittedOffsets(b.Context()); err != nil {
				b.Fatal(err)
			}
			member.Close()
			rounds++
		}
		b.ReportMetric(float64(rounds*total)/b.Elapsed().Seconds(), "msg/s")
	})
}

func bareTopic(b *testing.B, cl *kgo.Client) string {
	topic := "bare." + rand.Text()
	if _, err := kadm.NewClient(cl).CreateTopic(b.Context(), 4, 1, nil, topic); err != nil {
		b.Fatal(err)
	}
	return topic
}

func bareBatch(topic string, first, n int) []*kgo.Record {
	data := make([]byte, 200)
	list := make([]*kgo.Record, n)
	for i := range list {
		id := topic + strconv.Itoa(first+i)
		list[i] = &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa((first + i) % 100)), Value: data, Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte(id)}, {Key: "ce_type", Value: []byte(topic)}, {Key: "content-type", Value: []byte("application/json")},
		}}
	}
	return list
}
