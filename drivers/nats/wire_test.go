package nats

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/messaging/driver"
)

func TestEscapeValue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"order.placed": "order.placed", "a b": "a%20b", "50%": "50%25", `"x"`: "%22x%22", "é": "%C3%A9", "a\r\nb\x00\x7f": "a%0D%0Ab%00%7F", "": "",
	} {
		if got := escapeValue(in); got != want {
			t.Errorf("escapeValue(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a%20b": "a b", "%c3%A9": "é", "100%": "100%", "%2": "%2", "%zz%20": "%zz ", "%%32": "%2"} {
		if got := unescapeValue(in); got != want {
			t.Errorf("unescapeValue(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzWire: every valid message comes out of the wire format as it went in, and header values are
// safe on the wire.
func FuzzWire(f *testing.F) {
	f.Add("id", "key", "ce-x", "a b%20", []byte("x"))
	f.Add(" %", "\r\n", "a", "\x00é", []byte{})
	f.Fuzz(func(t *testing.T, id, key, name, value string, data []byte) {
		m := driver.Message{ID: id, Topic: "t", Key: key, Headers: driver.HeadersOf(map[string]string{name: value}), Data: data}
		if m.Validate() != nil {
			t.Skip("not a valid message")
		}
		msg := new(nats.Msg)
		if encode(msg, &m, 2<<20) != nil {
			t.Skip("larger when encoded")
		}
		for name, values := range msg.Header {
			if v := values[0]; strings.TrimSpace(v) != v || strings.ContainsAny(v, "\r\n\x00") {
				t.Errorf("header %s has value %q on the wire", name, v)
			}
		}
		if got := decode("t", false, msg); got.ID != id || got.Key != key || got.Headers.Get(name) != value || len(got.Headers) != 1 || string(got.Data) != string(data) {
			t.Errorf("got %+v, want %+v", got, m)
		}
	})
}

// FuzzDecode: headers of other programs do no harm, and Nats-Msg-Id is the id.
func FuzzDecode(f *testing.F) {
	f.Add("ce-id", "%", "Nats-Msg-Id", "%41")
	f.Add("", "", "Kaptar-Key", "")
	f.Add("ce-type", "a", "CE-Type", "b")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		header := nats.Header{name1: {value1}, name2: {value2, value1}}
		m := decode("t", false, &nats.Msg{Header: header})
		if id := unescapeValue(header.Get("Nats-Msg-Id")); id != "" && m.ID != id {
			t.Errorf("headers %v give id %q, want %q", header, m.ID, id)
		}
		for range 5 { // whatever the order of the map
			if again := decode("t", false, &nats.Msg{Header: header}); again.Key != m.Key || !slices.Equal(again.Headers, m.Headers) {
				t.Fatalf("headers %v are read as %v and as %v", header, m, again)
			}
		}
	})
}

// TestAcknowledged: only the server's word that it has stored a message counts, in whatever form it
// comes.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	refused := &jetstream.APIError{}
	for answer, want := range map[string]error{
		`{"stream":"S","seq":1}`:                                    nil,
		`{"stream":"S", "seq":1,"duplicate": true}`:                 nil,
		`{"seq":1,"stream":"S"}`:                                    nil,
		`{ "stream":"error","seq":1}`:                               nil,
		`{"stream":"error","seq":1}`:                                nil,
		`{"stream":"","seq":1}`:                                     jetstream.ErrInvalidJSAck,
		`{"seq":1}`:                                                 jetstream.ErrInvalidJSAck,
		`{"error":{"code":503,"err_code":10077},"stream":"S"}`:      refused,
		`{"stream":"S","error":{"code":503,"err_code":10077}}`:      refused,
		`{"stream":"S","seq":0,"error":{"code":400,"err_code":10}}`: refused,
	} {
		err := acknowledged(&nats.Msg{Data: []byte(answer)})
		if want == error(refused) {
			if _, ok := errors.AsType[*jetstream.APIError](err); !ok {
				t.Errorf("%s is %v, want the server's error", answer, err)
			}
		} else if !errors.Is(err, want) {
			t.Errorf("%s is %v, want %v", answer, err, want)
		}
	}
	if acknowledged(&nats.Msg{Data: []byte(`{"stream`)}) == nil || acknowledged(&nats.Msg{Data: []byte(`+ACK`)}) == nil {
		t.Error("an answer that cannot be read counts as stored")
	}
}

// TestDeliveries: the number stands where the client library, too, finds it.
func TestDeliveries(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.orders.mail.3.17.9.1700000000000000000.0",
		"$JS.ACK.hub.AAAA.orders.mail.3.17.9.1700000000000000000.0",
		"$JS.ACK.hub.AAAA.orders.mail.3.17.9.1700000000000000000.0.token",
	} {
		meta, err := (&nats.Msg{Reply: reply, Sub: &nats.Subscription{}}).Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if n := deliveries(reply); n != 3 || meta.NumDelivered != 3 {
			t.Errorf("%s: %d deliveries, and %d by the client library, want 3", reply, n, meta.NumDelivered)
		}
	}
	if n := deliveries("_INBOX.x"); n != 1 {
		t.Errorf("a reply subject of another form gives %d deliveries, want 1", n)
	}
}
