package messaging_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

// A foreign program puts messages on a topic with the client of its broker alone.
type foreign func(t *testing.T, url, topic, key, contentType, body string, headers map[string]string)

func foreignNATS(t *testing.T, url, topic, _, contentType, body string, headers map[string]string) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := &nats.Msg{Subject: topic + ".p00", Data: []byte(body), Header: nats.Header{"Content-Type": {contentType}}}
	for name, value := range headers {
		m.Header["ce-"+name] = []string{value}
	}
	if answer, err := conn.RequestMsg(m, timeout); err != nil || strings.Contains(string(answer.Data), "error") {
		t.Fatalf("%v, %v", answer, err)
	}
}

func foreignKafka(t *testing.T, url, topic, key, contentType, body string, headers map[string]string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.TrimPrefix(url, "kafka://")))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(body), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}}}
	for name, value := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_" + name, Value: []byte(value)})
	}
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func foreignRabbitMQ(t *testing.T, url, topic, key, contentType, body string, headers map[string]string) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	table := amqp.Table{}
	for name, value := range headers {
		table["cloudEvents:"+name] = value
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	sent, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), topic, key, false, false,
		amqp.Publishing{ContentType: contentType, Headers: table, Body: []byte(body)})
	if err != nil || !sent.Wait() {
		t.Fatalf("publish: %v", err)
	}
}

// TestEnvelopesOfOthers: what a program of another language publishes, in binary or structured mode
// and as CloudEvents' binding for the broker has it, is one and the same event for a handler.
func TestEnvelopesOfOthers(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]struct {
		url     func(t *testing.T) string
		publish foreign
		from    messaging.Start
	}{
		"nats":     {func(t *testing.T) string { return startBroker(t).url() }, foreignNATS, messaging.FromBeginning},
		"kafka":    {func(t *testing.T) string { return servertest.Shared(t, servers.Kafka).URL() }, foreignKafka, messaging.FromBeginning},
		"rabbitmq": {func(t *testing.T) string { return servertest.VHost(t) }, foreignRabbitMQ, messaging.FromNow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := messaging.Topic[placed]{Name: fmt.Sprint("far.placed-", time.Now().UnixNano(), ".v1")}
			type seen struct {
				event  messaging.Event[placed]
				origin string
			}
			got := make(chan seen, 10)
			url := broker.url(t)
			start(t, t.TempDir(), map[string]string{"broker_url": url}, kaptar.Service{Name: "reader", Setup: func(app *kaptar.App) error {
				return messaging.Subscribe(app, topic, func(ctx context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
					got <- seen{e, trace.SpanContextFromContext(ctx).TraceID().String()}
					return nil
				}, &messaging.SubscribeOptions{From: broker.from})
			}})
			origin := "0af7651916cd43dd8448eb211c80319c"
			event := func(id string, n int) map[string]string {
				return map[string]string{
					"specversion": "1.0", "id": id, "source": "/far/away", "type": topic.Name, "time": "2026-03-01T12:00:00Z",
					"subject": "k1", "partitionkey": "k1", "traceparent": "00-" + origin + "-b7ad6b7169203331-01", "sequence": fmt.Sprint(n),
				}
			}
			body := func(id string, n int) string {
				var members []string
				for name, value := range event(id, n) {
					members = append(members, fmt.Sprintf("%q:%q", name, value))
				}
				return "{" + strings.Join(append(members, fmt.Sprintf(`"data":{"n":%d}`, n)), ",") + "}"
			}
			broker.publish(t, url, topic.Name, "k1", "application/json", `{"n":1}`, event("e1", 1))
			broker.publish(t, url, topic.Name, "k1", "application/cloudevents+json; charset=utf-8", body("e2", 2), nil)
			broker.publish(t, url, topic.Name, "k1", "application/cloudevents+json", body("e1", 1), nil) // the first again
			broker.publish(t, url, topic.Name, "k1", "application/json", `{"n":2}`, event("e2", 2))      // the second again
			broker.publish(t, url, topic.Name, "k1", "application/cloudevents+json", body("e3", 3), nil)
			at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			for n := 1; n <= 3; n++ {
				s := receive(t, fmt.Sprint("event ", n), got)
				want := messaging.Event[placed]{ID: fmt.Sprint("e", n), Source: "/far/away", Key: "k1", Time: at, Attempt: 1, Data: placed{N: n}}
				if e := s.event; e != want || s.origin != origin {
					t.Errorf("event %d: got %+v of trace %s, want %+v of %s", n, e, s.origin, want, origin)
				}
			}
		})
	}
}

var described = messaging.Topic[*descriptorpb.FieldDescriptorProto]{Name: "field.described.v1", DataSchema: "https://example.com/field.described.v1.json"}

// TestProtobuf: a topic of generated messages is protobuf on the wire, reads JSON as well, and keeps
// presence and fields that it does not know.
func TestProtobuf(t *testing.T) {
	t.Parallel()
	got := make(chan *descriptorpb.FieldDescriptorProto, 10)
	var pub *messaging.Publisher[*descriptorpb.FieldDescriptorProto]
	var db *sql.DB
	s := start(t, t.TempDir(), nil, kaptar.Service{Name: "fields", Setup: func(app *kaptar.App) (err error) {
		if db, err = app.DB(nil); err != nil {
			return err
		}
		if pub, err = messaging.NewPublisher(app, described); err != nil {
			return err
		}
		return messaging.Subscribe(app, described, func(_ context.Context, _ *sql.Tx, e messaging.Event[*descriptorpb.FieldDescriptorProto]) error {
			got <- e.Data
			return nil
		}, nil)
	}})
	sent := &descriptorpb.FieldDescriptorProto{Name: new(""), Number: new(int32(0))} // there, and zero
	sent.ProtoReflect().SetUnknown([]byte{0x98, 0x75, 0x07})                         // field 1875 is 7
	err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return pub.Publish(ctx, tx, "k", sent) })
	if err != nil {
		t.Fatal(err)
	}
	if e := receive(t, "the message", got); !proto.Equal(e, sent) || e.Name == nil || e.TypeName != nil {
		t.Errorf("got %v, want %v with its unknown field and presence", e, sent)
	}
	m := s.Events(described.Name)[0]
	if ct, schema := m.Headers.Get("content-type"), m.Headers.Get("ce-dataschema"); ct != "application/protobuf" || schema != described.DataSchema {
		t.Errorf("on the wire: content type %q, schema %q, want application/protobuf and the topic's", ct, schema)
	}
	deliver := func(id, contentType, data string) {
		t.Helper()
		headers := cloudEvent(id, "k")
		headers["ce-type"], headers["content-type"] = described.Name, contentType
		if contentType == "" {
			delete(headers, "content-type")
		}
		s.Deliver(driver.Message{ID: id, Topic: described.Name, Key: "k", Headers: driver.HeadersOf(headers), Data: []byte(data)})
	}
	deliver("json", "application/json; charset=utf-8", `{"name":"","typeName":"x","new":{"a":1}}`)
	if e := receive(t, "the JSON", got); e.Name == nil || e.GetTypeName() != "x" {
		t.Errorf("got %v, want what the JSON has", protojson.Format(e))
	}
	deliver("structured", "application/cloudevents+json",
		`{"specversion":"1.0","id":"s","source":"far","type":"field.described.v1","datacontenttype":"application/protobuf","data_base64":"CgNmb28="}`)
	if e := receive(t, "the structured event", got); e.GetName() != "foo" {
		t.Errorf("got %v, want the name foo", e)
	}
	reasons := []string{
		`bad-1 on field.described.v1: data: expected a google.protobuf.FieldDescriptorProto in application/protobuf`,
		`bad-2 on field.described.v1: data: expected a google.protobuf.FieldDescriptorProto in application/json`,
		`bad-3 on field.described.v1: data: name: expected this key once`,
		`bad-4 on field.described.v1: content type "": expected application/protobuf or application/json`,
		`bad-5 on field.described.v1: content type "text/plain": expected application/protobuf or application/json`,
	}
	deliver("bad-1", "application/protobuf", "\x0a\xffsecret")
	deliver("bad-2", "application/json", `{"number":"secret"}`)
	deliver("bad-3", "application/json", `{"name":"a","name":"b"}`)
	deliver("bad-4", "", `{"name":"a"}`)
	deliver("bad-5", "text/plain", `{"name":"a"}`)
	st := &store{db: db}
	eventually(t, "dead letters", func() bool { return len(st.deadLetters(t)) == len(reasons) })
	for _, d := range st.deadLetters(t) {
		if !slices.Contains(reasons, strings.TrimPrefix(d.Reason, "messaging: ")) {
			t.Errorf("dead letter %q, want one of %q", d.Reason, reasons)
		}
	}
}
