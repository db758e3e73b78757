package messaging_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/baggage"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// An envelope is what anybody who reaches the broker may put on a topic.
type envelope struct {
	name string
	edit map[string][]string // headers that differ from a good event's, percent-encoded; nil removes one
	data string              // "" is a good event's
	want string              // "" is handled; else a dead letter, with a reason that has this
}

func longer(n int) string { return strings.Repeat("x", n) }

func manyHeaders(n int) map[string][]string {
	all := map[string][]string{}
	for i := range n {
		all[fmt.Sprintf("ce-ext%d", i)] = []string{"v"}
	}
	return all
}

func one(name, value string) map[string][]string { return map[string][]string{name: {value}} }

// envelopes have %d in their data where the number of the case goes.
func envelopes() []envelope {
	const data = `{"n":%d`
	all := []envelope{
		{"good", nil, "", ""},
		{"an extension", one("ce-tenant", "a"), "", ""},
		{"a new key in the data", nil, data + `,"new":{"a":[1]}}`, ""},
		{"no time", one("ce-time", ""), "", ""},
		{"no content type", map[string][]string{"content-type": nil}, "", ""},
		{"no subject", map[string][]string{"ce-subject": nil}, "", ""},
		{"no id of CloudEvents", map[string][]string{"ce-id": nil}, "", ""}, // the broker's own is there
		{"an empty id", one("ce-id", ""), "", ""},
		{"an id of 20 KB", one("ce-id", longer(20_000)), "", ""},
		{"an id with NUL", one("ce-id", "a%00b"), "", ""},
		{"an id that is not UTF-8", one("ce-id", "a%FFb"), "", ""},
		{"an id with a line of its own", one("ce-id", "a%0D%0Alevel=ERROR msg=forged"), "", ""},
		{"an id with ANSI", one("ce-id", "%1B[31mred"), "", ""},
		{"no specversion", map[string][]string{"ce-specversion": nil}, "", `header ce-specversion is ""`},
		{"an old specversion", one("ce-specversion", "0.3"), "", `header ce-specversion is "0.3"`},
		{"a specversion to come", one("ce-specversion", "2.0"), "", `header ce-specversion is "2.0"`},
		{"a specversion with NUL", one("ce-specversion", "1.0%00"), "", `header ce-specversion is "1.0\x00"`},
		{"a specversion of 20 KB", one("ce-specversion", longer(20_000)), "", `header ce-specversion is "` + longer(100) + `":`},
		{"two specversions, one good", map[string][]string{"ce-specversion": {"1.0"}, "CE-Specversion": {"9"}}, "", `header ce-specversion is "9"`},
		{"the type of another topic", one("ce-type", "order.cancelled.v1"), "", `header ce-type is "order.cancelled.v1": expected the name of the topic`},
		{"the type of another version", one("ce-type", "order.placed.v2"), "", `header ce-type is "order.placed.v2"`},
		{"the type in capitals", one("ce-type", "Order.Placed.v1"), "", `header ce-type is "Order.Placed.v1"`},
		{"no type", map[string][]string{"ce-type": nil}, "", `header ce-type is ""`},
		{"two types", map[string][]string{"ce-type": {"order.placed.v1"}, "Ce-Type": {"order.placed.v2"}}, "", `header ce-type is "order.placed.v2"`},
		{"a type with ANSI", one("ce-type", "%1B[31m"), "", `header ce-type is "\x1b[31m"`},
		{"no source", map[string][]string{"ce-source": nil}, "", "header ce-source is missing"},
		{"an empty source", one("ce-source", ""), "", "header ce-source is missing"},
		{"a source of 20 KB", one("ce-source", longer(20_000)), "", ""},
		{"a source with NUL", one("ce-source", "a%00"), "", ""},
		{"a source that stands for all", one("ce-source", "*"), "", ""},
		{"time as words", one("ce-time", "yesterday"), "", `header ce-time is "yesterday": expected a time as in RFC 3339`},
		{"time as a number", one("ce-time", "1767322800"), "", `header ce-time is "1767322800"`},
		{"time without a zone", one("ce-time", "2026-01-02T03:04:05"), "", "header ce-time"},
		{"time that is none", one("ce-time", "2026-13-45T99:99:99Z"), "", "header ce-time"},
		{"a time of 20 KB", one("ce-time", "2026-01-02T03:04:05."+strings.Repeat("9", 20_000)+"X"), "", "header ce-time"},
		{"time long ago", one("ce-time", "0000-01-01T00:00:00Z"), "", ""},
		{"time far ahead", one("ce-time", "9999-12-31T23:59:59Z"), "", ""},
		{"XML", one("content-type", "application/xml"), "", `content type "application/xml": expected application/json`},
		{"structured mode", one("content-type", "application/cloudevents+json"), structured(`"data":{"n":%d}`), ""},
		{"structured, with a charset", one("content-type", "application/cloudevents+json; charset=UTF-8"), structured(`"subject":"k","data":{"n":%d}`), ""},
		{"structured, whatever the headers say", map[string][]string{"content-type": {"application/cloudevents+json"}, "ce-type": {"order.cancelled.v1"}}, structured(`"data":{"n":%d}`), ""},
		{"structured, of binary mode's data", one("content-type", "application/cloudevents+json"), "", `attribute id is missing`},
		{"structured, the type of another topic", one("content-type", "application/cloudevents+json"),
			strings.Replace(structured(`"data":{"n":%d}`), orders.Name, "order.cancelled.v1", 1), `header ce-type is "order.cancelled.v1": expected the name of the topic`},
		{"structured, no source", one("content-type", "application/cloudevents+json"),
			strings.Replace(structured(`"data":{"n":%d}`), `"source"`, `"sauce"`, 1), "header ce-source is missing"},
		{"structured, an old specversion", one("content-type", "application/cloudevents+json"),
			strings.Replace(structured(`"data":{"n":%d}`), `"1.0"`, `"0.3"`, 1), `header ce-specversion is "0.3"`},
		{"structured, data with a wrong number", one("content-type", "application/cloudevents+json"), structured(`"data":{"n":"secret"}`), "data: n: expected a whole number of type int, got string"},
		{"structured, text", one("content-type", "application/cloudevents+json"), structured(`"datacontenttype":"text/plain","data":"secret"`), `content type "text/plain": expected application/json`},
		{"a batch", one("content-type", "application/cloudevents-batch+json"), "[]", "a batch of events: expected one event in each message"},
		{"protobuf", one("content-type", "application/protobuf"), "\x08\x07", `content type "application/protobuf": expected application/json`},
		{"text", one("content-type", "text/plain"), "", `content type "text/plain"`},
		{"a content type that is none", one("content-type", "application/json; ="), "", `content type "application/json; ="`},
		{"a content type of 20 KB", one("content-type", longer(20_000)), "", `content type "` + longer(100) + `":`},
		{"a key of 10 KB", one("ce-subject", longer(10_000)), "", ""},
		{"a key with NUL", one("ce-subject", "a%00b"), "", ""},
		{"a key that is not UTF-8", one("ce-subject", "%FF%FE"), "", ""},
		{"1,000 headers", manyHeaders(1000), "", ""},
		{"a traceparent that is none", one("traceparent", "garbage"), "", ""},
		{"a traceparent of zeros", one("traceparent", "00-00000000000000000000000000000000-0000000000000000-01"), "", ""},
		{"a traceparent of 20 KB", one("traceparent", longer(20_000)), "", ""},
		{"a tracestate of 20 KB", map[string][]string{"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "tracestate": {"a=" + longer(20_000)}}, "", ""},
		{"a baggage of 20 KB", one("baggage", "role=admin,x="+longer(20_000)), "", ""},
		{"an identity", map[string][]string{"kaptar-principal": {"admin"}, "authorization": {"Bearer x"}}, "", ""},
		{"no data", nil, " ", "data: expected JSON: unexpected end of JSON input"},
		{"data cut", nil, data, "data: expected JSON: unexpected end"},
		{"data with more behind", nil, data + `}{}`, "data: expected JSON: invalid character '{' after top-level value"},
		{"a list", nil, `[{"n":1}]`, "data: expected an object, got array"},
		{"text for a number", nil, `{"n":"secret"}`, "data: n: expected a whole number of type int, got string"},
		{"a fraction", nil, `{"n":1.5}`, "data: n: expected a whole number of type int, got number"},
		{"a number beyond 64 bits", nil, `{"n":9223372036854775808}`, "data: n: expected a whole number of type int, got number"},
		{"a number beyond all", nil, `{"n":1e999}`, "data: n: expected a whole number of type int, got number"},
		{"a key twice", nil, data + `,"n":7}`, "data: n: expected this key once"},
		{"a key in capitals", nil, `{"N":7}`, `data: N: expected the key "n"`},
		{"deep", nil, data + `,"new":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "expected at most 64 levels"},
		{"not UTF-8", nil, data + ",\"text\":\"\xff\"}", "data: expected UTF-8"},
		{"NUL in a text", nil, data + `,"text":"a\u0000"}`, "data: text: expected text without NUL"},
		{"half a surrogate", nil, data + `,"text":"\ud83d"}`, "data: text: expected surrogates in pairs"},
		{"500 KB of text", nil, data + `,"text":"` + longer(500_000) + `"}`, ""},
	}
	return all
}

// structured is an event in structured mode, with its last members; its id is that of the case.
func structured(members string) string {
	return `{"specversion":"1.0","id":"s-%d","source":"elsewhere","type":"` + orders.Name + `",` + members + `}`
}

// headers are those of case n as they go over the wire.
func (e *envelope) headers(n int) map[string][]string {
	h := map[string][]string{"x-case": {fmt.Sprint(n)}}
	for name, value := range cloudEvent(fmt.Sprint("case-", n), fmt.Sprint("key-", n)) {
		h[name] = []string{value}
	}
	for name, values := range e.edit {
		if h[name] = values; values == nil {
			delete(h, name)
		}
	}
	return h
}

func (e *envelope) body(n int) string {
	switch e.data {
	case "":
		return fmt.Sprintf(`{"n":%d}`, n)
	case " ":
		return ""
	}
	return strings.ReplaceAll(e.data, "%d", fmt.Sprint(n))
}

// unescaped is a header's value behind the driver.
func unescaped(s string) string {
	return strings.NewReplacer("%00", "\x00", "%FF", "\xff", "%FE", "\xfe", "%0D", "\r", "%0A", "\n", "%1B", "\x1b").Replace(s)
}

// onMemory publishes a case to the broker of s. It returns false for one that no driver publishes.
func onMemory(s *system, e *envelope, n int) bool {
	all := driver.Headers{}
	for name, values := range e.headers(n) {
		all = append(all, driver.Header{Name: strings.ToLower(name), Value: unescaped(values[0])})
	}
	all.Sort()
	m := driver.Message{ID: fmt.Sprint("case-", n), Topic: orders.Name, Key: all.Get("ce-subject"), Headers: all, Data: []byte(e.body(n))}
	if m.Validate() != nil || len(all) < len(e.headers(n)) { // two of one name: they are for a wire
		return false
	}
	s.Deliver(m)
	return true
}

// TestHostileEnvelopes: each message is handled or put aside, for a reason that is short and plain,
// and the good one behind it is handled.
func TestHostileEnvelopes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memory", "nats"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(nil)
			values := map[string]string{}
			var conn *nats.Conn
			if name == "nats" {
				broker := startBroker(t)
				var err error
				if conn, err = nats.Connect(broker.url()); err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				values["broker_url"] = broker.url()
			}
			s := start(t, t.TempDir(), values, store.service())
			cases := envelopes()
			var sent []int
			good := envelope{name: "the good one behind"}
			for n := range cases {
				for i, e := range []*envelope{&cases[n], &good} {
					n := n + i*1000
					if conn == nil {
						if !onMemory(s, e, n) {
							continue
						}
					} else {
						m := &nats.Msg{Subject: orders.Name + ".p00", Data: []byte(e.body(n)), Header: e.headers(n)}
						m.Header["Nats-Msg-Id"] = []string{fmt.Sprint("case-", n)} // which names what has no ce-id
						if e.edit["ce-id"] != nil {
							delete(m.Header, "Nats-Msg-Id")
						}
						if answer, err := conn.RequestMsg(m, timeout); err != nil || strings.Contains(string(answer.Data), "error") {
							t.Fatalf("%s: %v %v", e.name, answer, err)
						}
					}
					sent = append(sent, n)
				}
			}
			eventually(t, "all messages", func() bool { return len(store.effects(t, "*"))+len(store.deadLetters(t)) >= len(sent) })
			checkEnvelopes(t, store, cases, sent)
			for line := range strings.Lines(s.Log()) {
				if len(line) > 2000 || strings.ContainsAny(line, "\x00\x1b\r") || strings.HasPrefix(line, "level=") || strings.Contains(line, "secret") {
					t.Errorf("a line of the log is %.300q, want it short, plain and without data", line)
				}
			}
		})
	}
}

func checkEnvelopes(t *testing.T, store *store, cases []envelope, sent []int) {
	t.Helper()
	handled := map[int]bool{}
	for _, n := range store.effects(t, "*") {
		if handled[n] {
			t.Errorf("case %d: handled twice", n)
		}
		handled[n] = true
	}
	dead := map[string]outbox.DeadLetter{}
	for _, d := range store.deadLetters(t) {
		dead[d.Message.Headers.Get("x-case")] = d
	}
	for _, n := range sent {
		e := envelope{name: "the good one behind"}
		if n < 1000 {
			e = cases[n]
		}
		d := dead[fmt.Sprint(n)]
		if handled[n] != (e.want == "") || !strings.Contains(d.Reason, e.want) || (e.want == "") != (d.ID == 0) {
			t.Errorf("%d, %s: handled %v, dead letter %.300q, want %q", n, e.name, handled[n], d.Reason, e.want)
		}
		odd := strings.ContainsFunc(d.Reason, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
		if len(d.Reason) > 500 || odd || strings.Contains(d.Reason, "secret") {
			t.Errorf("%s: reason %.600q, want it short and plain", e.name, d.Reason)
		}
	}
}

// TestHostileEnvelopesWithoutStore: what cannot be put aside is dropped.
func TestHostileEnvelopesWithoutStore(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	handled := map[int]bool{}
	s := start(t, t.TempDir(), nil, kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, orders, func(_ context.Context, e messaging.Event[placed]) error {
			mu.Lock()
			defer mu.Unlock()
			handled[e.Data.N] = true
			return nil
		}, nil)
	}})
	var dropped, good int
	cases := envelopes()
	for n := range cases {
		if !onMemory(s, &cases[n], n) {
			continue
		}
		if cases[n].want == "" {
			good++
		} else {
			dropped++
		}
	}
	eventually(t, "all", func() bool {
		return s.processed("store", "dropped") == fmt.Sprint(dropped) && s.processed("store", "ok") == fmt.Sprint(good)
	})
	mu.Lock()
	defer mu.Unlock()
	for n := range cases {
		if handled[n] && cases[n].want != "" {
			t.Errorf("%s: handled, want it dropped", cases[n].name)
		}
	}
}

// TestIdentityDoesNotTravelInEvents: what an event says of identities is not what a handler has.
func TestIdentityDoesNotTravelInEvents(t *testing.T) {
	t.Parallel()
	got := make(chan context.Context, 1)
	store := newStore(func(ctx context.Context, _ *sql.Tx, _ messaging.Event[placed]) error {
		got <- ctx
		return nil
	})
	s := start(t, t.TempDir(), nil, store.service())
	onMemory(s, &envelope{edit: map[string][]string{"baggage": {"role=admin"}, "kaptar-principal": {"x"}}}, 1)
	ctx := receive(t, "the event", got)
	if b := baggage.FromContext(ctx); b.Len() != 0 {
		t.Errorf("baggage of the handler is %v, want none", b)
	}
}
