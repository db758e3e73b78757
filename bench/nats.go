package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bareNATS uses nats.go.
type bareNATS struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func openNATS(_ context.Context, url string) (client, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<16))
	return &bareNATS{nc, js}, err
}

func streamName(topic string) string { return strings.ReplaceAll(topic, ".", "_") }

func (b *bareNATS) prepare(ctx context.Context, topic string) error {
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName(topic), Subjects: []string{topic + ".*"}, Storage: jetstream.FileStorage,
		MaxAge: 7 * 24 * time.Hour, Duplicates: 10 * time.Minute, AllowAtomicPublish: true, // as the driver's
	})
	return err
}

func (b *bareNATS) publisher(topic string, _ int) (func(context.Context, []event) error, error) {
	return func(ctx context.Context, events []event) error {
		futures := make([]jetstream.PubAckFuture, len(events))
		for i := range events {
			e := &events[i]
			h := fnv.New32a()
			_, _ = io.WriteString(h, e.key)
			msg := &nats.Msg{Subject: fmt.Sprintf("%s.p%02d", topic, h.Sum32()%16), Data: e.data, Header: nats.Header{
				nats.MsgIdHdr: {e.id}, "key": {e.key}, "ce-id": {e.id}, "ce-type": {eventType}, "content-type": {contentType},
			}}
			if len(events) == 1 {
				_, err := b.js.PublishMsg(ctx, msg)
				return err
			}
			var err error
			if futures[i], err = b.js.PublishMsgAsync(msg); err != nil {
				return err
			}
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}, nil
}

func (b *bareNATS) consume(ctx context.Context, topic string, n int, handle func(id, key string, data []byte)) error {
	consumer, err := b.js.CreateConsumer(ctx, streamName(topic), jetstream.ConsumerConfig{
		Durable: rand.Text(), AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxAckPending: 10_000,
	})
	if err != nil {
		return err
	}
	got := 0
	result := make(chan error, 1)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		if got == n {
			return
		}
		handle(m.Headers().Get("ce-id"), m.Headers().Get("key"), m.Data())
		if err := m.Ack(); err != nil {
			result <- err
		}
		if got++; got == n {
			result <- nil
		}
	}, jetstream.PullMaxMessages(inFlight))
	if err != nil {
		return err
	}
	defer consuming.Stop()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *bareNATS) close() { b.nc.Close() }

// startNATS starts a server in this process that writes each message to the disk first.
func startNATS(context.Context) (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "bench-nats-")
	if err != nil {
		return "", nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir,
		SyncAlways: true, MaxPayload: 2 << 20, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return "", nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return "", nil, fmt.Errorf("the NATS server in %s is not ready after 10 s", dir)
	}
	return s.ClientURL(), func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}, nil
}
