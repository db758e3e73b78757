package shoptest

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Deliver puts an event on a topic as a client in another language would: a
// CloudEvent with the given id and JSON data. Delivering one id twice makes the
// broker deliver it twice.
func Deliver(t *testing.T, brokerURL, topic, id, key, data string) {
	t.Helper()
	conn, err := nats.Connect(brokerURL)
	if err != nil {
		t.Fatalf("shoptest: deliver to %s: %v", topic, err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatalf("shoptest: deliver to %s: %v", topic, err)
	}
	_, err = js.PublishMsg(t.Context(), &nats.Msg{Subject: topic + ".p00", Data: []byte(data), Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {"shoptest"}, "ce-type": {topic}, "ce-subject": {key},
		"ce-time": {time.Now().UTC().Format(time.RFC3339)}, "content-type": {"application/json"},
	}})
	if err != nil {
		t.Fatalf("shoptest: deliver to %s: %v", topic, err)
	}
}
