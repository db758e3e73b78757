package messaging

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar/messaging/driver"
)

// FuzzDecode: an event is what its publisher meant, or refused for good in a few plain words.
func FuzzDecode(f *testing.F) {
	const topic = "order.placed.v1"
	f.Add("1.0", topic, "elsewhere", "2026-01-02T03:04:05Z", "application/json", "key", []byte(`{"id":1,"items":[{"sku":"tea"}],"new":[]}`))
	f.Add("0.3", "other", "", "yesterday", "text/plain; =", "\xff", []byte(`{"id":1,"id":2}`))
	f.Add("1.0", topic, "*", "9999-12-31T23:59:59.999999999+23:59", "application/json; charset=utf-16", "\x00", []byte("\xff\xfe"))
	f.Add("1.0", topic, "s", "", "", "", []byte(`{"ID":1}`))
	f.Fuzz(func(t *testing.T, spec, kind, source, at, media, key string, data []byte) {
		type order struct {
			ID    int64 `json:"id"`
			Items []struct {
				SKU string `json:"sku"`
			} `json:"items"`
			At *time.Time `json:"at"`
		}
		d := &driver.Delivery{Message: driver.Message{ID: "1", Topic: topic, Key: key, Data: data, Headers: driver.HeadersOf(map[string]string{
			driver.HeaderSpecVersion: spec, driver.HeaderType: kind, driver.HeaderSource: source, driver.HeaderTime: at, driver.HeaderContentType: media,
		})}}
		e, err := decode[order](d)
		if err == nil {
			if spec != "1.0" || kind != topic || source == "" || e.Source != source || e.Key != key || !utf8.Valid(data) {
				t.Fatalf("decode took %+v as %+v", d, e)
			}
			return
		}
		if reason := err.Error(); !isPermanent(err) || len(reason) > 1000 || strings.ContainsFunc(reason, unicode.IsControl) {
			t.Fatalf("decode = %q, permanent: %v; want it permanent, short and plain", reason, isPermanent(err))
		}
	})
}

// FuzzProtobuf: a message is what its publisher meant, in either format, or refused for good in a few
// plain words that repeat none of its values.
func FuzzProtobuf(f *testing.F) {
	f.Add("application/protobuf", []byte("\x0a\x03foo\x98\x75\x07"))
	f.Add("application/json", []byte(`{"name":"foo","number":1,"new":{"a":[]}}`))
	f.Add("application/json", []byte(`{"name":"a","name":"b"}`))
	f.Add("", []byte(nil))
	f.Add("text/plain", []byte("\xff"))
	f.Fuzz(func(t *testing.T, media string, data []byte) {
		d := &driver.Delivery{Message: driver.Message{ID: "1", Topic: testTopic, Data: data, Headers: driver.HeadersOf(map[string]string{
			driver.HeaderSpecVersion: "1.0", driver.HeaderType: testTopic, driver.HeaderSource: "s", driver.HeaderContentType: media,
		})}}
		e, err := decode[*descriptorpb.FieldDescriptorProto](d)
		if err != nil {
			if reason := err.Error(); !isPermanent(err) || len(reason) > 1000 || strings.ContainsFunc(reason, unicode.IsControl) {
				t.Fatalf("decode = %q, permanent: %v; want it permanent, short and plain", reason, isPermanent(err))
			}
			return
		}
		text, err := proto.Marshal(e.Data)
		if err != nil {
			t.Fatalf("%q was taken, and cannot be written: %v", data, err)
		}
		again := &descriptorpb.FieldDescriptorProto{}
		if err := proto.Unmarshal(text, again); err != nil || !proto.Equal(again, e.Data) {
			t.Fatalf("%q became %v, then %v, %v", data, e.Data, again, err)
		}
	})
}
