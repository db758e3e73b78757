package kafka

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/messaging/driver"
)

func encode(m *driver.Message, limit int) (*kgo.Record, error) {
	r := new(kgo.Record)
	return r, newEncoder([]driver.Message{*m}).encode(r, m, "t", limit)
}

func decode(r *kgo.Record) driver.Message { return new(decoder).decode("t", r) }

func TestWireNames(t *testing.T) {
	t.Parallel()
	m := driver.Message{ID: "1", Topic: "t", Key: "k", Headers: driver.HeadersOf(map[string]string{
		"ce-id": "1", "ce-type": "order.placed.v1", "ce_type": "mine", "ce-": "x", "content-type": "a/b", "traceparent": "00-0", "kaptar-id": "not the id",
	})}
	r, err := encode(&m, usualLimit)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, h := range r.Headers {
		got[h.Key] = string(h.Value)
	}
	want := map[string]string{
		"ce_id": "1", "ce_type": "order.placed.v1", "Kaptar-Header-ce_type": "mine", "ce_": "x", "content-type": "a/b", "traceparent": "00-0", "kaptar-id": "not the id",
	}
	if !maps.Equal(got, want) {
		t.Errorf("headers on the wire are %v, want %v", got, want)
	}
	m.ID = "2"
	if r, err = encode(&m, usualLimit); err != nil || r.Headers[0].Key != "Kaptar-Id" || string(r.Headers[0].Value) != "2" {
		t.Errorf("encode with another ce-id = %v, %v; want the id in Kaptar-Id", r, err)
	}
}

func TestEncodeNeverNil(t *testing.T) {
	t.Parallel()
	r, err := encode(&driver.Message{ID: "1", Topic: "t"}, usualLimit)
	if err != nil || r.Key == nil || r.Value == nil {
		t.Errorf("encode of a message without key and data = %v, %v; want both empty and not null, which mean no partition and deleted", r, err)
	}
	data := []byte("abc")
	r, err = encode(&driver.Message{ID: "1", Topic: "t", Data: data}, usualLimit)
	data[0] = 'x'
	if err != nil || string(r.Value) != "abc" {
		t.Errorf("the record shares its value with the message, which the caller may change: %q, %v", r.Value, err)
	}
}

func TestEncodeLimit(t *testing.T) {
	t.Parallel()
	m := driver.Message{ID: "1", Topic: "t", Data: make([]byte, 1000)}
	if _, err := encode(&m, 1000); !errors.Is(err, driver.ErrTooLarge) {
		t.Errorf("encode of 1000 bytes for a topic that takes 1000 = %v, want driver.ErrTooLarge", err)
	}
	if _, err := encode(&m, 1200); err != nil {
		t.Errorf("encode of 1000 bytes for a topic that takes 1200 = %v, want nil", err)
	}
}

func TestDecodeForeign(t *testing.T) {
	t.Parallel()
	header := func(pairs ...string) (list []kgo.RecordHeader) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return list
	}
	for name, c := range map[string]struct {
		r    kgo.Record
		want driver.Message
	}{
		"CloudEvent": {
			kgo.Record{Key: []byte("7"), Value: []byte("{}"), Headers: header("ce_id", "a", "ce_specversion", "1.0", "content-type", "application/json")},
			driver.Message{ID: "a", Key: "7", Data: []byte("{}"), Headers: driver.HeadersOf(map[string]string{"ce-id": "a", "ce-specversion": "1.0", "content-type": "application/json"})},
		},
		"bare":      {kgo.Record{Topic: "x", Partition: 3, Offset: 9, Timestamp: time.UnixMilli(1_700_000_000_000)}, driver.Message{ID: "x-3-9-1700000000000"}},
		"capitals":  {kgo.Record{Headers: header("CE_ID", "a", "Content-Type", "b")}, driver.Message{ID: "a", Headers: driver.HeadersOf(map[string]string{"ce-id": "a", "content-type": "b"})}},
		"not UTF-8": {kgo.Record{Key: []byte("\xff"), Headers: header("ce_id", "\xff")}, driver.Message{ID: "\uFFFD", Key: "\uFFFD", Headers: driver.HeadersOf(map[string]string{"ce-id": "\uFFFD"})}},
	} {
		got := decode(&c.r)
		if got.ID != c.want.ID || got.Key != c.want.Key || string(got.Data) != string(c.want.Data) || !slices.Equal(got.Headers, c.want.Headers) || got.Topic != "t" {
			t.Errorf("%s: decode = %+v, want %+v", name, got, c.want)
		}
	}
}

// TestDecodeInARow: what a decoder remembers of one record changes nothing in the next, nor in the
// messages before.
func TestDecodeInARow(t *testing.T) {
	t.Parallel()
	header := func(name, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: name, Value: []byte(value)} }
	many := kgo.Record{Key: []byte("many")}
	for i := range 40 {
		many.Headers = append(many.Headers, header(fmt.Sprintf("h%02d", i), strings.Repeat("v", i)))
	}
	records := []kgo.Record{
		{Headers: []kgo.RecordHeader{header("ce_id", "1"), header("ce_type", "t"), header("x", "")}},
		{Headers: []kgo.RecordHeader{header("ce_id", "2"), header("ce_type", "t")}},
		{Headers: []kgo.RecordHeader{header("ce_type", "t"), header("ce_id", "2")}},
		{Headers: []kgo.RecordHeader{header("Kaptar-Id", "3"), header("ce_id", "2"), header("ce_type", "t")}},
		{Headers: []kgo.RecordHeader{header("", "2"), header("ce_type", "\xff"), header("ce_id", "4")}},
		{Headers: []kgo.RecordHeader{header("ce_id", "5"), header("ce_type", "\xff")}},
		many,
		{Key: []byte("plain"), Offset: 7},
		many,
		{Headers: []kgo.RecordHeader{header("ce_id", strings.Repeat("long", textsTogether)), header("ce_type", "t")}},
		{Headers: []kgo.RecordHeader{header("ce_id", "1"), header("ce_type", "t"), header("x", "")}},
	}
	var d decoder
	var got []driver.Message
	for i := range records {
		got = append(got, d.decode("t", &records[i]))
	}
	for i := range records {
		if want := decode(&records[i]); got[i].ID != want.ID || got[i].Key != want.Key || !slices.Equal(got[i].Headers, want.Headers) {
			t.Errorf("record %d came as %+v, want %+v", i, got[i], want)
		}
	}
}

// FuzzWire: every valid message comes out of the wire format as it went in.
func FuzzWire(f *testing.F) {
	f.Add("id", "key", "ce-x", "a b%20", "ce_x", []byte("x"))
	f.Add("x", "\r\n", "kaptar-id", "\x00é", "kaptar-header-ce_x", []byte{})
	f.Fuzz(func(t *testing.T, id, key, name, value, other string, data []byte) {
		m := driver.Message{ID: id, Topic: "t", Key: key, Headers: driver.HeadersOf(map[string]string{name: value, other: "", "ce-id": value}), Data: data}
		if m.Validate() != nil {
			t.Skip("not a valid message")
		}
		r, err := encode(&m, newLimit)
		if err != nil {
			t.Fatalf("encode of a valid message = %v, want nil", err)
		}
		if got := decode(r); got.ID != id || got.Key != key || !slices.Equal(got.Headers, m.Headers) || string(got.Data) != string(data) {
			t.Errorf("got %+v, want %+v", got, m)
		}
	})
}

// FuzzDecode: headers of other programs do no harm.
func FuzzDecode(f *testing.F) {
	f.Add("ce_id", []byte("%"), "Kaptar-Id", []byte("\xff"))
	f.Add("", []byte{}, "Kaptar-Header-", []byte(nil))
	f.Fuzz(func(t *testing.T, name1 string, value1 []byte, name2 string, value2 []byte) {
		m := decode(&kgo.Record{Headers: []kgo.RecordHeader{{Key: name1, Value: value1}, {Key: name2, Value: value2}, {Key: name1, Value: value2}}})
		if m.ID == "" || strings.ToValidUTF8(m.ID, "") != m.ID {
			t.Errorf("headers %q: %q, %q: %q give the id %q", name1, value1, name2, value2, m.ID)
		}
	})
}
