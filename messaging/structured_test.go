package messaging

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/kaptar/kaptar/messaging/driver"
)

const testTopic = "order.placed.v1"

// structuredEvent is a good event in structured mode, with the members of changes in place of its own;
// "" leaves one out.
func structuredEvent(changes ...string) string {
	members := []string{`"specversion":"1.0"`, `"id":"e1"`, `"source":"/far"`, `"type":"` + testTopic + `"`, `"data":{"n":7}`}
	for _, c := range changes {
		name, _, _ := strings.Cut(c, ":")
		members = slices.DeleteFunc(members, func(m string) bool { return strings.HasPrefix(m, name+":") })
		if !strings.HasSuffix(c, ":") {
			members = append(members, c)
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

// structuredCase is a message in structured mode, and what it becomes: data, key, headers, or the reason
// for which it is refused.
type structuredCase struct {
	name    string
	media   string // "" is application/cloudevents+json
	body    string
	data    string
	key     string // "" is the transport's, "wire"
	headers string // that are there besides those of a good event, name=value, joined by |; the value - is none
	refused string // the whole reason
}

func structuredCases() []structuredCase {
	const good = `{"n":7}`
	return []structuredCase{
		{name: "good", body: structuredEvent(), data: good},
		{name: "charset", media: "application/cloudevents+json; charset=UTF-8", body: structuredEvent(), data: good},
		{name: "capitals in the media type", media: "Application/CloudEvents+JSON;charset=\"utf-8\"", body: structuredEvent(), data: good},
		{name: "space", body: " \r\n" + structuredEvent() + "\t", data: good},
		{name: "subject", body: structuredEvent(`"subject":"k1"`), data: good, key: "k1", headers: "ce-subject=k1"},
		{name: "partitionkey", body: structuredEvent(`"partitionkey":"k2"`), data: good, key: "k2", headers: "ce-partitionkey=k2"},
		{name: "partitionkey before subject", body: structuredEvent(`"subject":"k1"`, `"partitionkey":"k2"`), data: good, key: "k2", headers: "ce-partitionkey=k2|ce-subject=k1"},
		{name: "empty subject", body: structuredEvent(`"subject":""`), data: good, headers: "ce-subject="},
		{name: "null is none", body: structuredEvent(`"subject":null`, `"tenant":null`), data: good},
		{name: "time", body: structuredEvent(`"time":"2026-01-02T03:04:05Z"`), data: good, headers: "ce-time=2026-01-02T03:04:05Z"},
		{name: "sequence", body: structuredEvent(`"sequence":"12"`), data: good, headers: "ce-sequence=12"},
		{name: "sequence as a number", body: structuredEvent(`"sequence":12`), data: good, headers: "ce-sequence=12"},
		{name: "boolean extension", body: structuredEvent(`"express":true`), data: good, headers: "ce-express=true"},
		{name: "negative extension", body: structuredEvent(`"offset":-2147483648`), data: good, headers: "ce-offset=-2147483648"},
		{name: "dataschema", body: structuredEvent(`"dataschema":"urn:x"`), data: good, headers: "ce-dataschema=urn:x"},
		{
			name: "traceparent", body: structuredEvent(`"traceparent":"00-a-b-01"`, `"tracestate":"x=1"`), data: good,
			headers: "ce-traceparent=00-a-b-01|ce-tracestate=x=1|traceparent=00-a-b-01|tracestate=x=1",
		},
		{name: "datacontenttype", body: structuredEvent(`"datacontenttype":"application/json; charset=utf-8"`), data: good, headers: "content-type=application/json; charset=utf-8"},
		{name: "own JSON type", body: structuredEvent(`"datacontenttype":"application/vnd.x+json"`), data: good, headers: "content-type=application/vnd.x+json"},
		{name: "text as JSON", body: structuredEvent(`"data":"plain"`), data: `"plain"`},
		{name: "data is null", body: structuredEvent(`"data":null`), data: `null`},
		{name: "no data", body: structuredEvent(`"data":`), data: ""},
		{name: "text", body: structuredEvent(`"datacontenttype":"text/plain"`, `"data":"a\nb"`), data: "a\nb", headers: "content-type=text/plain"},
		{name: "text without data", body: structuredEvent(`"datacontenttype":"text/plain"`, `"data":`), data: "", headers: "content-type=text/plain"},
		{name: "base64", body: structuredEvent(`"datacontenttype":"application/protobuf"`, `"data":`, `"data_base64":"CAc="`), data: "\x08\x07", headers: "content-type=application/protobuf"},
		{name: "base64 without a type", body: structuredEvent(`"data":`, `"data_base64":"eyJuIjo3fQ=="`), data: good, headers: "content-type=-"},
		{name: "empty base64", body: structuredEvent(`"data":`, `"data_base64":""`), data: "", headers: "content-type=-"},
		{name: "data and null in base64", body: structuredEvent(`"data_base64":null`), data: good},
		{name: "id with a line", body: structuredEvent(`"id":"a\nb"`), data: good},

		{name: "batch", media: mediaBatch, body: "[" + structuredEvent() + "]", refused: `content type "application/cloudevents-batch+json": a batch of events: expected one event in each message, as application/cloudevents+json`},
		{name: "batch with a charset", media: mediaBatch + "; charset=utf-8", body: "[]", refused: `content type "application/cloudevents-batch+json": a batch of events: expected one event in each message, as application/cloudevents+json`},
		{name: "XML", media: "application/cloudevents+xml", body: "<event/>", refused: `content type "application/cloudevents+xml": expected application/cloudevents+json, or the binary mode`},
		{name: "no format", media: "application/cloudevents", body: structuredEvent(), refused: `content type "application/cloudevents": expected application/cloudevents+json, or the binary mode`},
		{name: "a list", body: "[" + structuredEvent() + "]", refused: "event: expected an object, got array"},
		{name: "null", body: "null", refused: "attribute id is missing"},
		{name: "nothing", body: "", refused: "event: expected JSON: unexpected end of JSON input"},
		{name: "cut", body: structuredEvent()[:30], refused: "event: expected JSON: unexpected end of JSON input"},
		{name: "text behind", body: structuredEvent() + "{}", refused: "event: expected JSON: invalid character '{' after top-level value"},
		{name: "no JSON", body: "ce-id: 1", refused: "event: expected JSON: invalid character 'c' looking for beginning of value"},
		{name: "not UTF-8", body: structuredEvent("\"tenant\":\"\xff\""), refused: "event: expected UTF-8"},
		{name: "UTF-16", body: "\xff\xfe{\x00}\x00", refused: "event: expected UTF-8"},
		{name: "NUL in an attribute", body: structuredEvent(`"id":"a\u0000"`), refused: "event: id: expected text without NUL"},
		{name: "NUL in the data", body: structuredEvent(`"data":{"a":"\u0000"}`), refused: "event: data.a: expected text without NUL"},
		{name: "half a surrogate", body: structuredEvent(`"id":"\ud83d"`), refused: "event: id: expected surrogates in pairs"},
		{name: "an id twice", body: strings.Replace(structuredEvent(), "{", `{"id":"e2",`, 1), refused: "event: id: expected this key once"},
		{name: "a key of the data twice", body: structuredEvent(`"data":{"n":1,"n":2}`), refused: "event: data.n: expected this key once"},
		{name: "deep", body: structuredEvent(`"data":` + strings.Repeat("[", 70) + strings.Repeat("]", 70)), refused: "event: data" + strings.Repeat("[0]", 63) + ": expected at most 64 levels"},
		{name: "no id", body: structuredEvent(`"id":`), refused: "attribute id is missing"},
		{name: "an empty id", body: structuredEvent(`"id":""`), refused: "attribute id is missing"},
		{name: "an id of null", body: structuredEvent(`"id":null`), refused: "attribute id is missing"},
		{name: "an id that is a number", body: structuredEvent(`"id":7`), refused: "attribute id: expected text, or for an extension a whole number of 32 bits or a boolean"},
		{name: "a type that is true", body: structuredEvent(`"type":true`), refused: "attribute type: expected text"},
		{name: "a source that is an object", body: structuredEvent(`"source":{"a":1}`), refused: "attribute source: expected text"},
		{name: "an extension that is a list", body: structuredEvent(`"tags":["a"]`), refused: "attribute tags: expected text"},
		{name: "an extension with a fraction", body: structuredEvent(`"ratio":1.5`), refused: "attribute ratio: expected text, or for an extension a whole number of 32 bits or a boolean"},
		{name: "an extension beyond 32 bits", body: structuredEvent(`"big":2147483648`), refused: "attribute big: expected text, or for an extension a whole number of 32 bits or a boolean"},
		{name: "ID in capitals", body: structuredEvent(`"ID":"e2"`), refused: `attribute "ID": expected a name of lower-case letters and digits`},
		{name: "a name with a dash", body: structuredEvent(`"content-type":"text/plain"`), refused: `attribute "content-type": expected a name of lower-case letters and digits`},
		{name: "a name with a line", body: structuredEvent(`"a\r\nb":"x"`), refused: `attribute "a\r\nb": expected a name of lower-case letters and digits`},
		{name: "an empty name", body: structuredEvent(`"":"x"`), refused: `attribute "": expected a name of lower-case letters and digits`},
		{name: "a long name", body: structuredEvent(`"` + strings.Repeat("X", 1000) + `":"x"`), refused: `attribute "` + strings.Repeat("X", 60) + `": expected a name of lower-case letters and digits`},
		{name: "data twice", body: structuredEvent(`"data_base64":"eyJuIjo3fQ=="`), refused: "data and data_base64 are both there: expected one of them"},
		{name: "base64 that is none", body: structuredEvent(`"data":`, `"data_base64":"a b"`), refused: "data_base64: expected text in base64"},
		{name: "base64 for URLs", body: structuredEvent(`"data":`, `"data_base64":"_-8="`), refused: "data_base64: expected text in base64"},
		{name: "base64 that is a number", body: structuredEvent(`"data":`, `"data_base64":7`), refused: "data_base64: expected text in base64"},
		{name: "an object as text", body: structuredEvent(`"datacontenttype":"text/plain"`), refused: `data: expected text, since datacontenttype is "text/plain", or data_base64`},
		{name: "a datacontenttype that is none", body: structuredEvent(`"datacontenttype":"; ="`), refused: `content type "; =": expected a media type, such as application/json`},
		{name: "an event in the event", body: structuredEvent(`"datacontenttype":"application/cloudevents+json"`), refused: `datacontenttype is "application/cloudevents+json": expected the type of the data, not of another event`},
		{name: "1 MiB and more", body: structuredEvent(`"data":"` + strings.Repeat("x", driver.MaxSize) + `"`), refused: "1048796 bytes with headers: expected at most 1048576"},
	}
}

// TestStructured: an event in structured mode is the same as in binary mode, or stays as it came and is
// refused for good, for a reason that is short and plain.
func TestStructured(t *testing.T) {
	t.Parallel()
	for _, tc := range structuredCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			media := tc.media
			if media == "" {
				media = mediaStructured
			}
			came := driver.Message{ID: "wire", Topic: testTopic, Key: "wire", Data: []byte(tc.body), Headers: driver.HeadersOf(map[string]string{
				"ce-id": "copy", "ce-source": "copy", "content-type": media, "traceparent": "of the transport", "x-own": "1",
			})}
			before := fmt.Sprintf("%q", came.Headers)
			d := &driver.Delivery{Message: came, Attempt: 3}
			arrive(d, false)
			if now := fmt.Sprintf("%q", came.Headers); now != before {
				t.Errorf("headers that others share became %s, want %s", now, before)
			}
			_, err := decode[json.RawMessage](d)
			if tc.refused != "" {
				if want := "messaging: wire on " + testTopic + ": " + tc.refused; err == nil || err.Error() != want || !isPermanent(err) {
					t.Errorf("refused with %v, want %q for good", err, want)
				}
				if d.ID != "wire" || string(d.Data) != tc.body || d.Key != "wire" {
					t.Errorf("got %.300s, want it as it came", fmt.Sprint(d.Message))
				}
				return
			}
			want := map[string]string{
				"ce-id": "e1", "ce-source": "/far", "ce-specversion": "1.0", "ce-type": testTopic, "content-type": mediaJSON, "traceparent": "of the transport", "x-own": "1",
			}
			if strings.HasPrefix(tc.name, "id with") {
				want["ce-id"] = "a\nb"
			}
			for one := range strings.SplitSeq(tc.headers, "|") {
				name, value, _ := strings.Cut(one, "=")
				if want[name] = value; value == "-" || name == "" {
					delete(want, name)
				}
			}
			key := tc.key
			if key == "" {
				key = "wire"
			}
			if got := fmt.Sprint(d.Headers.Map()); got != fmt.Sprint(want) {
				t.Errorf("headers %s, want %v", got, want)
			}
			if string(d.Data) != tc.data || d.Key != key || d.Attempt != 3 {
				t.Errorf("data %q, key %q, want %q, %q", d.Data, d.Key, tc.data, key)
			}
			if d.ID != "e1" && !strings.HasPrefix(tc.name, "id with") || (&driver.Message{ID: d.ID, Topic: testTopic}).Validate() != nil {
				t.Errorf("id %q, want the event's, in a form that databases keep", d.ID)
			}
		})
	}
}

// TestTraceparentAsExtension: programs that send the extension and no header have their origin kept.
func TestTraceparentAsExtension(t *testing.T) {
	t.Parallel()
	headers := driver.HeadersOf(map[string]string{"ce-traceparent": "00-a-b-01", "ce-tracestate": "x=1"})
	d := &driver.Delivery{Message: driver.Message{ID: "1", Topic: testTopic, Headers: headers}}
	arrive(d, false)
	if d.Headers.Get("traceparent") != "00-a-b-01" || d.Headers.Get("tracestate") != "x=1" || headers.Get("traceparent") != "" {
		t.Errorf("got %v from %v, want the headers and no change of what others share", d.Headers, headers)
	}
	d.Headers.Set("traceparent", "00-c-d-01")
	if arrive(d, false); d.Headers.Get("traceparent") != "00-c-d-01" {
		t.Errorf("got %v, want the header to count before the extension", d.Headers)
	}
}

// FuzzStructured: what is read has an identity and says the same when it is written again; what is
// refused is refused for good and in a few plain words, and is unchanged.
func FuzzStructured(f *testing.F) {
	for _, tc := range structuredCases() {
		if len(tc.body) < 10_000 {
			f.Add(tc.media, []byte(tc.body))
		}
	}
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		if media == "" {
			media = mediaStructured
		}
		d := &driver.Delivery{Message: driver.Message{
			ID: "wire", Topic: testTopic, Key: "wire", Data: body, Headers: driver.Headers{{Name: driver.HeaderContentType, Value: media}},
		}}
		out, structured, err := unfold(&d.Message)
		arrive(d, false)
		if _, refused := decode[json.RawMessage](d); refused != nil {
			if reason := refused.Error(); !isPermanent(refused) || len(reason) > 1000 || strings.ContainsFunc(reason, unicode.IsControl) {
				t.Fatalf("refused: %q, want it permanent, short and plain", reason)
			}
		}
		if err != nil && (d.ID != "wire" || string(d.Data) != string(body)) {
			t.Fatalf("refused and changed: %+v", d)
		}
		if !structured || err != nil {
			return
		}
		if out.ID == "" || out.Headers.Get(driver.HeaderID) != out.ID || out.Key == "" || out.Topic != testTopic {
			t.Fatalf("%q became %+v, without identity, key or topic", body, out)
		}
		for i, h := range out.Headers {
			if i > 0 && out.Headers[i-1].Name >= h.Name {
				t.Fatalf("headers %v, want them in order", out.Headers)
			}
		}
		if _, again, _ := unfold(&out); again {
			t.Fatalf("%q became %+v, which is structured", body, out)
		}
	})
}
