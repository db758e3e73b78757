package schema_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar/messaging/schema"
)

func Example() {
	type placed struct {
		OrderID int64     `json:"order_id"`
		At      time.Time `json:"at"`
		Note    string    `json:"note,omitempty"`
	}
	type placedWithReason struct {
		OrderID int64     `json:"order_id"`
		At      time.Time `json:"at"`
		Reason  string    `json:"reason"`
	}
	before, now := schema.Of(reflect.TypeFor[placed]()), schema.Of(reflect.TypeFor[placedWithReason]())
	for _, b := range schema.Compare("order.placed.v1", before, now) {
		fmt.Println(b.Field, "-", b.Who, "-", b.Rule)
	}
	// Output: reason - new consumers cannot read old events - a required field may be missing
}

type (
	embedded struct {
		Inner string `json:"inner"`
		Both  int8   `json:"both"`
	}
	pointed struct {
		Far uint64 `json:"far"`
	}
	code       int
	custom     struct{}
	everything struct {
		embedded
		*pointed
		Both   string            `json:"both"`
		Plain  bool              // without a tag
		Skip   string            `json:"-"`
		Bytes  []byte            `json:"bytes"`
		Lines  []string          `json:"lines"`
		Some   []item            `json:"some,omitempty"`
		Two    [2]float32        `json:"two"`
		Maybe  *int8             `json:"maybe"`
		By     map[string]uint16 `json:"by"`
		At     time.Time         `json:"at,omitzero"`
		Any    any               `json:"any"`
		Code   code              `json:"code"`
		Quoted int64             `json:"quoted,string"`
		Custom custom            `json:"custom"`
		hidden int
	}
)

func (code) MarshalText() ([]byte, error)   { return []byte("code"), nil }
func (custom) MarshalJSON() ([]byte, error) { return []byte("[]"), nil }

// TestOf: what encoding/json writes of each kind of field.
func TestOf(t *testing.T) {
	t.Parallel()
	const want = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "everything", "type": "object",
	"properties": {
		"Plain": {"type": "boolean"},
		"any": {},
		"at": {"type": "string", "format": "date-time"},
		"both": {"type": "string"},
		"by": {"type": ["null", "object"], "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 65535}},
		"bytes": {"type": ["null", "string"], "contentEncoding": "base64"},
		"code": {"type": "string"},
		"custom": {},
		"far": {"type": "integer", "minimum": 0, "maximum": 18446744073709551615},
		"inner": {"type": "string"},
		"lines": {"type": ["array", "null"], "items": {"type": "string"}},
		"maybe": {"type": ["integer", "null"], "minimum": -128, "maximum": 127},
		"quoted": {"type": "string"},
		"some": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}},
		"two": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}
	},
	"required": ["Plain", "any", "both", "by", "bytes", "code", "custom", "inner", "lines", "maybe", "quoted", "two"]}`
	text, err := json.Marshal(schema.Of(reflect.TypeFor[everything]()))
	if err != nil {
		t.Fatal(err)
	}
	var got, expected any
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(text, &got); !reflect.DeepEqual(got, expected) {
		t.Errorf("got %s\nwant %s", text, want)
	}
	if e := (everything{}); e.hidden != 0 {
		t.Error("a hidden field is for nothing but to be left out")
	}
}

// TestOfItself: types that contain themselves end, and what others have of one name is kept apart.
func TestOfItself(t *testing.T) {
	t.Parallel()
	type forest struct {
		Trees []tree          `json:"trees,omitempty"`
		First *tree           `json:"first"`
		ByID  map[string]tree `json:"by_id,omitempty"`
	}
	s := schema.Of(reflect.TypeFor[forest]())
	def := s.Defs["tree"]
	if def == nil || s.Properties["trees"].Items.Ref != "#/$defs/tree" || def.Properties["sub"].Items.Ref != "#/$defs/tree" {
		text, err := json.Marshal(s)
		t.Errorf("got %s, %v, want the tree described once", text, err)
	}
	if root := schema.Of(reflect.TypeFor[tree]()); root.Properties["sub"].Items.Ref != "#" || root.Defs != nil {
		t.Errorf("got %+v, want the root to refer to itself", root)
	}
	m := schema.OfMessage((&descriptorpb.DescriptorProto{}).ProtoReflect().Descriptor())
	if m.Properties["nestedType"].Items.Ref != "#" || m.ContentType != "application/protobuf" || m.Properties["name"].Number != 1 {
		t.Errorf("got %+v, want the message to refer to itself, with numbers", m)
	}
}

// TestAsyncAPI: the document has what AsyncAPI 3.0 demands, every reference leads somewhere, and it is
// the same each time.
func TestAsyncAPI(t *testing.T) {
	t.Parallel()
	const odd = "hello/world~1#?%2f" // of programs without CloudEvents
	orders, trees := of[item](), of[tree]()
	orders.ID = "https://example.com/order.placed.v1.json"
	services := []schema.Service{
		{"order-service", "v1", []schema.Use{{Topic: "order.placed.v1", Publishes: true, Ordered: true, Schema: orders}, {Topic: odd, Group: "order-service", Raw: true}}},
		{"mail-service", "v2", []schema.Use{
			{Topic: "order.placed.v1", Group: "mail-service", Ordered: true, Schema: orders}, {Topic: "order.placed.v1", Group: "mail-service.second", Schema: orders},
			{Topic: "tree.grown.v1", Group: "mail-service", Schema: trees},
		}},
	}
	text, err := schema.AsyncAPI("shop", "v1", services)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if again, err := schema.AsyncAPI("shop", "v1", services); err != nil || string(again) != string(text) {
			t.Fatalf("another time: %s, %v, want the same document", again, err)
		}
	}
	checkAsyncAPI(t, text)
	var doc struct {
		Channels   map[string]struct{ Address string }
		Operations map[string]struct {
			Action  string
			Channel struct {
				Ref string `json:"$ref"`
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(doc.Operations))
	want := []string{
		"mail-service.reads.order.placed.v1", "mail-service.reads.tree.grown.v1", "mail-service.second.reads.order.placed.v1",
		"order-service.publishes.order.placed.v1", "order-service.reads." + odd,
	}
	if !slices.Equal(got, want) || len(doc.Channels) != 3 || doc.Operations[want[3]].Action != "send" || doc.Operations[want[0]].Action != "receive" {
		t.Errorf("operations %v of %d channels, want %v of 3", got, len(doc.Channels), want)
	}
}

// checkAsyncAPI tells what AsyncAPI 3.0's own JSON Schema refuses in a document of the parts that are
// written here, and references that lead nowhere.
func checkAsyncAPI(t *testing.T, text []byte) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	only := func(where string, of any, required string, optional string) map[string]any {
		t.Helper()
		m, ok := of.(map[string]any)
		if !ok {
			t.Fatalf("%s: got %T, want an object", where, of)
		}
		for name := range strings.FieldsSeq(required) {
			if m[name] == nil {
				t.Errorf("%s: %s is missing", where, name)
			}
		}
		for name := range m {
			if !slices.Contains(strings.Fields(required+" "+optional), name) {
				t.Errorf("%s: has %s, want one of %s %s", where, name, required, optional)
			}
		}
		return m
	}
	each := func(where string, of any, required, optional string, f func(name string, m map[string]any)) {
		t.Helper()
		m, ok := of.(map[string]any)
		if !ok {
			t.Fatalf("%s: got %T, want an object", where, of)
		}
		for name, value := range m {
			f(name, only(where+" "+name, value, required, optional))
		}
	}
	only("document", doc, "asyncapi info", "channels operations components defaultContentType id servers")
	if doc["asyncapi"] != "3.0.0" {
		t.Errorf("version %v, want 3.0.0", doc["asyncapi"])
	}
	only("info", doc["info"], "title version", "description license contact tags")
	each("channel", doc["channels"], "address messages", "title summary description", func(_ string, c map[string]any) {
		each("message of a channel", c["messages"], "name", "headers contentType payload title summary", func(name string, m map[string]any) {
			if h, ok := m["headers"].(map[string]any); ok && h["type"] != "object" {
				t.Errorf("message %s: headers are %v, want an object", name, h["type"])
			}
		})
	})
	each("operation", doc["operations"], "action channel", "messages title summary description", func(name string, o map[string]any) {
		if o["action"] != "send" && o["action"] != "receive" {
			t.Errorf("operation %s: action %v, want send or receive", name, o["action"])
		}
		channel := o["channel"].(map[string]any)["$ref"].(string)
		for _, m := range o["messages"].([]any) {
			if ref := m.(map[string]any)["$ref"].(string); !strings.HasPrefix(ref, channel+"/messages/") {
				t.Errorf("operation %s: message %s, want one of channel %s", name, ref, channel)
			}
		}
	})
	for name := range only("components", doc["components"], "schemas", "")["schemas"].(map[string]any) {
		if !regexp.MustCompile(`^[\w.\-]+$`).MatchString(name) {
			t.Errorf("schema %q, want letters, digits, dots, dashes and underscores", name)
		}
	}
	var follow func(v any)
	follow = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				follow(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				var at any = doc
				for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := at.(map[string]any)
					name, _ := url.PathUnescape(part)
					at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for name, e := range v {
				if name == "$id" || name == "$schema" {
					t.Errorf("%s within the document changes what references mean", name)
				}
				follow(e)
			}
		}
	}
	follow(doc)
}
