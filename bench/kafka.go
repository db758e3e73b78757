package main

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// bareKafka uses franz-go.
type bareKafka struct {
	seed string
	each bool // commit after each poll, not ten times a second
	cl   *kgo.Client
}

func openKafka(each bool) func(context.Context, string) (client, error) {
	return func(_ context.Context, url string) (client, error) {
		seed := strings.TrimPrefix(url, "kafka://")
		cl, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
			kgo.ProducerBatchMaxBytes(2<<20)) // as the driver's topics take
		return &bareKafka{seed, each, cl}, err
	}
}

// prepare makes a topic as the driver does.
func (b *bareKafka) prepare(ctx context.Context, topic string) error {
	limit := "2097152"
	_, err := kadm.NewClient(b.cl).CreateTopic(ctx, 16, 1, map[string]*string{"max.message.bytes": &limit}, topic)
	return err
}

func (b *bareKafka) publisher(topic string, _ int) (func(context.Context, []event) error, error) {
	return func(ctx context.Context, events []event) error {
		list := make([]*kgo.Record, len(events))
		for i := range events {
			e := &events[i]
			list[i] = &kgo.Record{Topic: topic, Key: []byte(e.key), Value: e.data, Headers: []kgo.RecordHeader{
				{Key: "ce_id", Value: []byte(e.id)}, {Key: "ce_type", Value: []byte(eventType)}, {Key: "content-type", Value: []byte(contentType)},
			}}
		}
		return b.cl.ProduceSync(ctx, list...).FirstErr()
	}, nil
}

func (b *bareKafka) consume(ctx context.Context, topic string, n int, handle func(id, key string, data []byte)) error {
	commits := kgo.AutoCommitInterval(100 * time.Millisecond)
	if b.each {
		commits = kgo.DisableAutoCommit()
	}
	member, err := kgo.NewClient(kgo.SeedBrokers(b.seed), kgo.ConsumerGroup(rand.Text()), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), commits,
		kgo.FetchMaxBytes(16<<20), kgo.FetchMaxWait(500*time.Millisecond), kgo.BlockRebalanceOnPoll())
	if err != nil {
		return err
	}
	defer member.CloseAllowingRebalance()
	for got := 0; got < n; {
		fetches := member.PollRecords(ctx, inFlight)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			id := ""
			for _, h := range r.Headers {
				if h.Key == "ce_id" {
					id = string(h.Value)
				}
			}
			handle(id, string(r.Key), r.Value)
			got++
		})
		if b.each {
			if err := member.CommitUncommittedOffsets(ctx); err != nil {
				return err
			}
		}
		member.AllowRebalance()
	}
	return member.CommitUncommittedOffsets(ctx)
}

func (b *bareKafka) close() { b.cl.Close() }
