package main

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A wire is a broker as a program without kaptar sees it, through the broker's own
// client.
type wire interface {
	// publish publishes e.
	publish(t *testing.T, e event)
	// again publishes the oldest message on topic whose body contains part once more, as
	// it is.
	again(t *testing.T, topic, part string)
}

// An event is a message of a program in another language.
type event struct {
	topic, id, key, body string
	// source and kind are those of CloudEvents; default /suite and the topic.
	source, kind string
	// noCloudEvent leaves out what makes it one; structured has it in the body instead of headers.
	noCloudEvent, structured bool
}

// attributes are those of CloudEvents that go as headers, without a prefix.
func (e event) attributes() map[string]string {
	if e.noCloudEvent || e.structured {
		return nil
	}
	return e.all()
}

func (e event) all() map[string]string {
	return map[string]string{
		"specversion": "1.0", "id": e.id, "source": cmp.Or(e.source, "/suite"), "type": cmp.Or(e.kind, e.topic), "subject": e.key,
		"time": time.Now().UTC().Format(time.RFC3339),
	}
}

// payload is the body of the message, and its content type; "" is none.
func (e event) payload(t *testing.T) (body []byte, contentType string) {
	t.Helper()
	if !e.structured {
		return []byte(e.body), ""
	}
	members := map[string]any{"data": json.RawMessage(e.body)}
	for name, value := range e.all() {
		members[name] = value
	}
	body, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return body, "application/cloudevents+json; charset=UTF-8"
}

// natsWire is NATS with JetStream.
type natsWire struct{ js jetstream.JetStream }

func dialNATS(t *testing.T, url string) wire {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return natsWire{js}
}

func (w natsWire) publish(t *testing.T, e event) {
	t.Helper()
	body, contentType := e.payload(t)
	msg := &nats.Msg{Subject: e.topic + ".p00", Data: body, Header: nats.Header{}}
	if contentType != "" {
		msg.Header.Set("Content-Type", contentType)
	}
	for name, value := range e.attributes() {
		msg.Header["ce-"+name] = []string{value}
	}
	w.send(t, msg)
}

func (w natsWire) send(t *testing.T, msg *nats.Msg) {
	t.Helper()
	if _, err := w.js.PublishMsg(t.Context(), msg); err != nil {
		t.Fatalf("publish to %s: %v", msg.Subject, err)
	}
}

func (w natsWire) again(t *testing.T, topic, part string) {
	t.Helper()
	name, err := w.js.StreamNameBySubject(t.Context(), topic+".p00")
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.js.OrderedConsumer(t.Context(), name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(patience); time.Now().Before(late); {
		msg, err := all.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatalf("no message on %s contains %s: %v", topic, part, err)
		}
		if !strings.Contains(string(msg.Data()), part) {
			continue
		}
		copied := &nats.Msg{Subject: msg.Subject(), Data: msg.Data(), Header: nats.Header{}}
		for name, values := range msg.Headers() {
			if name != nats.MsgIdHdr { // by which the server would drop it
				copied.Header[name] = values
			}
		}
		w.send(t, copied)
		return
	}
}

// kafkaWire is Kafka.
type kafkaWire struct{ url string }

func dialKafka(_ *testing.T, url string) wire { return kafkaWire{strings.TrimPrefix(url, "kafka://")} }

func (w kafkaWire) publish(t *testing.T, e event) {
	t.Helper()
	body, contentType := e.payload(t)
	r := &kgo.Record{Topic: e.topic, Key: []byte(e.key), Value: body}
	if contentType != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "content-type", Value: []byte(contentType)})
	}
	for name, value := range e.attributes() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_" + name, Value: []byte(value)})
	}
	w.send(t, r)
}

func (w kafkaWire) send(t *testing.T, r *kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatalf("publish to %s: %v", r.Topic, err)
	}
}

func (w kafkaWire) again(t *testing.T, topic, part string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.url), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		for _, r := range client.PollFetches(ctx).Records() {
			if strings.Contains(string(r.Value), part) {
				w.send(t, &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Headers: r.Headers})
				return
			}
		}
	}
	t.Fatalf("no message on %s contains %s", topic, part)
}

// rabbitWire is RabbitMQ.
type rabbitWire struct{ ch *amqp.Channel }

func dialRabbit(t *testing.T, url string) wire {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rabbitWire{ch}
}

func (w rabbitWire) publish(t *testing.T, e event) {
	t.Helper()
	body, contentType := e.payload(t)
	msg := amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: contentType, Body: body, Headers: amqp.Table{}}
	for name, value := range e.attributes() {
		msg.Headers["cloudEvents_"+name] = value
	}
	w.send(t, e.topic, e.key, msg)
}

func (w rabbitWire) send(t *testing.T, topic, key string, msg amqp.Publishing) {
	t.Helper()
	sent, err := w.ch.PublishWithDeferredConfirmWithContext(t.Context(), topic, key, false, false, msg)
	if err != nil {
		t.Fatalf("publish to %s: %v", topic, err)
	}
	if ok, err := sent.WaitContext(t.Context()); err != nil || !ok {
		t.Fatalf("publish to %s: confirmed %v, %v", topic, ok, err)
	}
}

// tap makes a queue that gets a copy of all there is from now on: RabbitMQ itself
// keeps no message that was taken.
func (w rabbitWire) tap(t *testing.T, topic string) {
	t.Helper()
	_, err := w.ch.QueueDeclare("suite:"+topic, true, false, false, false, nil)
	if err == nil {
		err = w.ch.QueueBind("suite:"+topic, "", topic, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w rabbitWire) again(t *testing.T, topic, part string) {
	t.Helper()
	for {
		d, ok, err := w.ch.Get("suite:"+topic, true)
		if err != nil || !ok {
			t.Fatalf("no message on %s contains %s: %v", topic, part, err)
		}
		if strings.Contains(string(d.Body), part) {
			w.send(t, topic, d.RoutingKey, amqp.Publishing{
				Headers: d.Headers, ContentType: d.ContentType, MessageId: d.MessageId, DeliveryMode: d.DeliveryMode, Body: d.Body,
			})
			return
		}
	}
}
