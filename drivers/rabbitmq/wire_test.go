package rabbitmq

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestDecodeForeign: what clients of other kinds write.
func TestDecodeForeign(t *testing.T) {
	t.Parallel()
	d := &amqp.Delivery{
		RoutingKey: "order-7", ContentType: "application/json", Body: []byte("{}"),
		Headers: amqp.Table{
			"cloudEvents:id": "ev-1", "cloudEvents_type": "order.placed", "cloudEvents:sequence": int32(7), "cloudEvents_flag": true,
			"cloudEvents_time": time.Unix(0, 0), "TraceParent": "00-x", "bytes": []byte("b"), "ratio": 1.5, "none": nil,
			"table": amqp.Table{"a": "b"}, "x-death": []any{amqp.Table{}}, "x-delivery-count": int64(2), "x-first-death-reason": "expired",
		},
	}
	got := decode("t", false, d)
	want := map[string]string{
		"ce-id": "ev-1", "ce-type": "order.placed", "ce-sequence": "7", "ce-flag": "true", "ce-time": "1970-01-01T00:00:00Z",
		"traceparent": "00-x", "bytes": "b", "ratio": "1.5", "content-type": "application/json",
	}
	if got.ID != "ev-1" || got.Key != "order-7" || got.Topic != "t" || string(got.Data) != "{}" || !maps.Equal(got.Headers.Map(), want) {
		t.Errorf("decode = %+v, want headers %v", got, want)
	}
	if n := attempt(d); n != 3 {
		t.Errorf("attempt = %d, want 3", n)
	}
	d.MessageId = "m-1"
	if got := decode("t", false, d); got.ID != "m-1" {
		t.Errorf("id = %q, want that of the message-id property", got.ID)
	}
	a, b := decode("t", false, &amqp.Delivery{}), decode("t", false, &amqp.Delivery{})
	if a.ID == "" || a.ID == b.ID {
		t.Errorf("messages without ids get %q and %q, want two different ones", a.ID, b.ID)
	}
}

// FuzzWire: every valid message that is not refused comes out of the wire format as it went in.
func FuzzWire(f *testing.F) {
	f.Add("id", "key", "ce-x", "a b%20", []byte("x"))
	f.Add(" %", "\r\n", "content-type", "", []byte{})
	f.Add("i", strings.Repeat("k", 256), "content-type", strings.Repeat("a", 256), []byte{0})
	f.Add("i", "", "ce-", "v", []byte{})
	f.Add("i", "", "cloudevents_id", "v", []byte{})
	f.Add("i", "", "kaptar-key", "v", []byte{})
	f.Fuzz(func(t *testing.T, id, key, name, value string, data []byte) {
		m := driver.Message{ID: id, Topic: "t", Key: key, Headers: driver.HeadersOf(map[string]string{name: value}), Data: data}
		if m.Validate() != nil {
			t.Skip("not a valid message")
		}
		out, err := encode(&m, 128<<10)
		if err != nil {
			t.Skip("more than the server takes")
		}
		if len(out.key) > 255 || len(out.msg.ContentType) > 255 || len(out.msg.MessageId) > 255 {
			t.Errorf("the routing key or a property has more than 255 bytes: %+v", out)
		}
		d := &amqp.Delivery{
			RoutingKey: out.key, MessageId: out.msg.MessageId, ContentType: out.msg.ContentType, Headers: out.msg.Headers, Body: out.msg.Body,
		}
		if got := decode("t", false, d); got.ID != id || got.Key != key || got.Headers.Get(name) != value || len(got.Headers) != 1 || string(got.Data) != string(data) {
			t.Errorf("got %+v, want %+v", got, m)
		}
	})
}

// FuzzDecode: headers of other programs do no harm, and are read in the same way at every delivery,
// although a table has no order.
func FuzzDecode(f *testing.F) {
	f.Add("cloudEvents_id", "1", "cloudEvents:id", "2", "ce-id", "text/plain", "key", int64(7))
	f.Add("x-death", "\x00", "Kaptar-Key", "k", "CE-Type", "", "", int64(-1))
	f.Add("content-type", "a", "Content-Type", "b", "", "c", "\xff", int64(1)<<62)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, name3, media, key string, n int64) {
		d := &amqp.Delivery{MessageId: "1", ContentType: media, RoutingKey: key, Headers: amqp.Table{
			name1: value1, name2: []byte(value2), name3: n, "x-delivery-count": n, "list": []any{value1}, "table": amqp.Table{name1: value1},
		}}
		if attempt(d) < 1 {
			t.Errorf("attempt %d of %v, want 1 or more", attempt(d), d.Headers)
		}
		first := decode("t", false, d)
		for range 5 {
			if again := decode("t", false, d); again.Key != first.Key || !slices.Equal(again.Headers, first.Headers) {
				t.Fatalf("headers %v are read as %v and as %v", d.Headers, first, again)
			}
		}
	})
}
