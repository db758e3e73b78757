package rabbitmq_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestForeignPublisher: a CloudEvent in binary mode from a client without kaptar, and a message
// that is none.
func TestForeignPublisher(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	m := join(t, b, driver.Subscription{Topic: "order.placed", Group: "g"})
	ch := plain(t, url)
	for _, p := range []amqp.Publishing{
		{Headers: amqp.Table{"cloudEvents:id": "ev-1", "cloudEvents:sequence": int64(7)}, ContentType: "application/json"},
		{Headers: amqp.Table{"cloudEvents_id": "ev-2", "traceparent": "00-x"}},
		{MessageId: "ev-3", Headers: amqp.Table{"cloudEvents_id": "other"}},
		{},
	} {
		p.Body = []byte("{}")
		if err := ch.PublishWithContext(t.Context(), "order.placed", "order-7", false, false, p); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 4 {
		d := m.next(t)
		got = append(got, fmt.Sprintf("id=%s key=%s %v %s", d.ID, d.Key, d.Headers.Map(), d.Data))
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"id=ev-1 key=order-7 map[ce-id:ev-1 ce-sequence:7 content-type:application/json] {}",
		"id=ev-2 key=order-7 map[ce-id:ev-2 traceparent:00-x] {}",
		"id=ev-3 key=order-7 map[ce-id:other] {}",
	}
	if !slices.Equal(got[:3], want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got[:3], "\n"), strings.Join(want, "\n"))
	}
	if strings.HasPrefix(got[3], "id= ") || !strings.HasSuffix(got[3], " key=order-7 map[] {}") {
		t.Errorf("a message without ids came as %s, want some id", got[3])
	}
}

// TestForeignConsumer: a client without kaptar sees a CloudEvent of the AMQP binding.
func TestForeignConsumer(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	ch := plain(t, url)
	if _, err := ch.QueueDeclare("mine", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("mine", "", "t", false, nil); err != nil {
		t.Fatal(err)
	}
	sent := message("t", "id-1", "order-7")
	sent.Headers = driver.HeadersOf(map[string]string{"ce-id": "id-1", "ce-specversion": "1.0", "content-type": "application/json", "traceparent": "00-x"})
	if err := b.Publish(t.Context(), []driver.Message{sent}); err != nil {
		t.Fatal(err)
	}
	got, ok, err := ch.Get("mine", true)
	if err != nil || !ok {
		t.Fatalf("Get = %v, %v", ok, err)
	}
	text := fmt.Sprint(got.MessageId, got.RoutingKey, got.ContentType, got.DeliveryMode, got.Headers)
	want := fmt.Sprint("id-1", "order-7", "application/json", amqp.Persistent,
		amqp.Table{"cloudEvents_id": "id-1", "cloudEvents_specversion": "1.0", "traceparent": "00-x"})
	if text != want {
		t.Errorf("a plain client gets %s, want %s", text, want)
	}
}

// TestQueues looks at what a group has on the server: quorum queues with one active consumer, whose
// dropped messages are kept.
func TestQueues(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	join(t, b, driver.Subscription{Topic: "t", Group: "g"})
	ch := plain(t, url)
	for _, queue := range []string{"t:g:0", "t:g:1"} {
		args := amqp.Table{
			"x-queue-type": "quorum", "x-single-active-consumer": true, "x-delivery-limit": int32(1<<31 - 1),
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "t:g:dead",
		}
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil { // fails when they differ
			t.Fatalf("queue %s: %v", queue, err)
		}
	}
}

// TestRawQueue: a queue of other programs is used as they made it; what is given back comes
// again; and without it nothing is lost.
func TestRawQueue(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	sub := driver.Subscription{Topic: "hello:world", Group: "g", From: driver.FromBeginning, Raw: true}
	if b.Declare(t.Context(), sub) != nil {
		t.Fatal("Declare of a queue that is not there: want nil, its programs may come later")
	}
	out := driver.Message{ID: "out", Topic: sub.Topic, Key: "k", Data: []byte{0, 255}, Raw: true, Headers: driver.Headers{{Name: "Reply", Value: "no"}}}
	for what, err := range map[string]error{
		"Subscribe": b.Subscribe(t.Context(), sub, func(driver.Delivery) {}), "Publish": b.Publish(t.Context(), []driver.Message{out}),
	} {
		if err == nil || !strings.Contains(err.Error(), "hello:world") || !strings.Contains(err.Error(), "make_queues=true") {
			t.Errorf("%s without the queue = %v, want an error that names it and what to do", what, err)
		}
	}
	ch := plain(t, url)
	if _, err := ch.QueueDeclare(sub.Topic, false, false, false, false, amqp.Table{"x-max-priority": int32(3)}); err != nil {
		t.Fatal(err)
	}
	m := join(t, b, sub)
	err := ch.PublishWithContext(t.Context(), "", sub.Topic, false, false, amqp.Publishing{MessageId: "in", Headers: amqp.Table{"X-Mark": "a", "ce-id": "b"}, Body: []byte{1, 0}})
	if err != nil {
		t.Fatal(err)
	}
	d := m.next(t)
	check := func(attempt int) {
		t.Helper()
		if text := fmt.Sprint(d.ID, d.Key, d.Headers.Map(), d.Data, d.Raw, d.Attempt); text != fmt.Sprint("in", "", map[string]string{"X-Mark": "a", "ce-id": "b"}, []byte{1, 0}, true, attempt) {
			t.Errorf("delivery %d is %s", attempt, text)
		}
	}
	check(1)
	if err := d.Nack(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	d = m.next(t)
	check(2)
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), []driver.Message{out}); err != nil {
		t.Fatal(err)
	}
	if d = m.next(t); d.ID != "out" || fmt.Sprint(d.Headers.Map()) != "map[Reply:no]" || string(d.Data) != "\x00\xff" {
		t.Errorf("got %+v, want what was published", d.Message)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMakeQueues(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	for i, declare := range []bool{false, true} {
		b := open(t, url+"?make_queues=true", options())
		defer closeNow(t, b)
		name := fmt.Sprint("made", i)
		if declare {
			if err := b.Declare(t.Context(), driver.Subscription{Topic: name, Raw: true}); err != nil {
				t.Fatal(err)
			}
		} else if err := b.Publish(t.Context(), []driver.Message{{ID: "1", Topic: name, Raw: true}}); err != nil {
			t.Fatal(err)
		}
		if _, err := plain(t, url).QueueDeclare(name, true, false, false, false, nil); err != nil {
			t.Errorf("%s is not a durable queue: %v", name, err)
		}
	}
}
