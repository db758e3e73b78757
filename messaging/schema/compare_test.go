package schema_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar/messaging/schema"
)

// of is the schema of a T.
func of[T any]() *schema.Schema { return schema.Of(reflect.TypeFor[T]()) }

// message is the schema of message M with these fields, in protobuf's text format.
func message(t *testing.T, text string) *schema.Schema {
	t.Helper()
	var file descriptorpb.FileDescriptorProto
	all := `name:"m.proto" package:"p" syntax:"proto3" message_type{name:"M" ` + text + `} message_type{name:"Part" field{name:"n" number:1 type:TYPE_INT32 label:LABEL_OPTIONAL}}
		enum_type{name:"Kind" value{name:"KIND_NONE" number:0} value{name:"KIND_TEA" number:1}}
		enum_type{name:"More" value{name:"KIND_NONE2" number:0} value{name:"KIND_TEA2" number:1} value{name:"KIND_JAM2" number:2}}`
	if err := prototext.Unmarshal([]byte(all), &file); err != nil {
		t.Fatal(err)
	}
	d, err := protodesc.NewFile(&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return schema.OfMessage(d.Messages().ByName("M"))
}

func field(name string, number int, kind string) string {
	return fmt.Sprintf(`field{name:%q number:%d label:LABEL_OPTIONAL type:TYPE_%s}`, name, number, kind)
}

// written is a schema as a file has it.
func written(t *testing.T, text string) *schema.Schema {
	t.Helper()
	var s schema.Schema
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

type (
	item struct {
		SKU string `json:"sku"`
	}
	tree struct {
		Name string  `json:"name"`
		Sub  []*tree `json:"sub,omitempty"`
	}
	numberedTree struct {
		Name int             `json:"name"`
		Sub  []*numberedTree `json:"sub,omitempty"`
	}
	grownTree struct {
		Name string       `json:"name"`
		Note string       `json:"note,omitempty"`
		Sub  []*grownTree `json:"sub,omitempty"`
	}
)

// comparisons are changes and what they break: field, who and rule of each, o for old consumers and n
// for new ones.
func comparisons(t *testing.T) map[string]struct {
	before, now *schema.Schema
	want        []string
} {
	t.Helper()
	m, w := func(text string) *schema.Schema { return message(t, text) }, func(text string) *schema.Schema { return written(t, text) }
	type base = struct {
		ID int64 `json:"id"`
	}
	withBase := of[base]()
	id := field("id", 1, "INT64")
	return map[string]struct {
		before, now *schema.Schema
		want        []string
	}{
		"nothing": {withBase, of[base](), nil},
		"optional field added": {withBase, of[struct {
			ID   int64  `json:"id"`
			Note string `json:"note,omitempty"`
		}](), nil},
		"optional struct added": {withBase, of[struct {
			ID   int64 `json:"id"`
			Item *item `json:"item,omitempty"`
		}](), nil},
		"required field added": {withBase, of[struct {
			ID   int64  `json:"id"`
			Note string `json:"note"`
		}](), []string{"note n a required field may be missing"}},
		"required field removed": {withBase, of[struct{}](), []string{"id o a required field may be missing"}},
		"optional field removed": {of[struct {
			ID int64 `json:"id,omitempty"`
		}](), of[struct{}](), nil},
		"required field renamed": {withBase, of[struct {
			ID int64 `json:"order_id"`
		}](), []string{"id o a required field may be missing", "order_id n a required field may be missing"}},
		"field in other capitals": {withBase, of[struct {
			ID int64 `json:"ID"`
		}](), []string{"ID n a required field may be missing", "id o a required field may be missing"}},
		"required is optional now": {withBase, of[struct {
			ID int64 `json:"id,omitempty"`
		}](), []string{"id o a required field may be missing"}},
		"optional is required now": {of[struct {
			ID int64 `json:"id,omitempty"`
		}](), withBase, []string{"id n a required field may be missing"}},
		"number is text now": {withBase, of[struct {
			ID string `json:"id"`
		}](), []string{"id o string is written, expected integer", "id n integer is written, expected string"}},
		"number in quotes now": {of[struct {
			ID bool `json:"id"`
		}](), of[struct {
			ID bool `json:"id,string"`
		}](), []string{"id o string is written, expected boolean", "id n boolean is written, expected string"}},
		"wider integer": {of[struct {
			N int32 `json:"n"`
		}](), of[struct {
			N int64 `json:"n"`
		}](), []string{"n o minimum -9223372036854775808 is written, expected -2147483648", "n o maximum 9223372036854775807 is written, expected 2147483647"}},
		"narrower integer": {of[struct {
			N int16 `json:"n"`
		}](), of[struct {
			N int8 `json:"n"`
		}](), []string{"n n minimum -32768 is written, expected -128", "n n maximum 32767 is written, expected 127"}},
		"without sign now": {of[struct {
			N int8 `json:"n"`
		}](), of[struct {
			N uint8 `json:"n"`
		}](), []string{"n o maximum 255 is written, expected 127", "n n minimum -128 is written, expected 0"}},
		"integer is a float now": {of[struct {
			N int `json:"n"`
		}](), of[struct {
			N float64 `json:"n"`
		}](), []string{"n o number is written, expected integer"}},
		"may be null now": {of[struct {
			S string `json:"s"`
		}](), of[struct {
			S *string `json:"s"`
		}](), []string{"s o null is written, expected string"}},
		"no null any more": {of[struct {
			S *string `json:"s"`
		}](), of[struct {
			S string `json:"s"`
		}](), []string{"s n null is written, expected string"}},
		"a list now": {of[struct {
			S string `json:"s,omitempty"`
		}](), of[struct {
			S []string `json:"s,omitempty"`
		}](), []string{"s o array is written, expected string", "s n string is written, expected array"}},
		"other elements": {of[struct {
			S []string `json:"s"`
		}](), of[struct {
			S []bool `json:"s"`
		}](), []string{"s[] o boolean is written, expected string", "s[] n string is written, expected boolean"}},
		"field of an element removed": {of[struct {
			S []item `json:"s"`
		}](), of[struct {
			S []struct{} `json:"s"`
		}](), []string{"s[].sku o a required field may be missing"}},
		"bytes are text now": {of[struct {
			S []byte `json:"s,omitempty"`
		}](), of[struct {
			S string `json:"s,omitempty"`
		}](), []string{"s o format none is written, expected base64", "s n format base64 is written, expected none"}},
		"text is a number now": {of[struct {
			S string `json:"s"`
		}](), of[struct {
			S json.Number `json:"s"`
		}](), []string{"s o number is written, expected string", "s n string is written, expected number"}},
		"text is a time now": {of[struct {
			S string `json:"s"`
		}](), of[struct {
			S time.Time `json:"s"`
		}](), []string{"s n format none is written, expected date-time"}},
		"a map of others": {of[struct {
			S map[string]int8 `json:"s"`
		}](), of[struct {
			S map[string]bool `json:"s"`
		}](), []string{"s{} o boolean is written, expected integer", "s{} n integer is written, expected boolean"}},
		"a struct is a map now": {of[struct {
			S item `json:"s"`
		}](), of[struct {
			S map[string]string `json:"s,omitempty"`
		}](), []string{"s o a required field may be missing", "s.sku o a required field may be missing"}},
		"anything now": {of[struct {
			S string `json:"s"`
		}](), of[struct {
			S any `json:"s"`
		}](), []string{"s o any value is written, expected string"}},
		"a longer array": {of[struct {
			S [2]bool `json:"s"`
		}](), of[struct {
			S [3]bool `json:"s"`
		}](), []string{"s o maxItems 3 is written, expected 2", "s n minItems 2 is written, expected 3"}},
		"what contains itself":        {of[tree](), of[grownTree](), nil},
		"what contains itself breaks": {of[tree](), of[numberedTree](), []string{"name o integer is written, expected string", "name n string is written, expected integer"}},
		"enum widened":                {w(`{"enum":["a"]}`), w(`{"enum":["a","b"]}`), []string{" o other values than [a] are written"}},
		"enum narrowed":               {w(`{"enum":["a",1]}`), w(`{"enum":["a"]}`), []string{" n other values than [a] are written"}},
		"enum dropped":                {w(`{"enum":["a"]}`), w(`{}`), []string{" o other values than [a] are written"}},
		"longer text":                 {w(`{"maxLength":10}`), w(`{"maxLength":20}`), []string{" o maxLength 20 is written, expected 10"}},
		"text of a length":            {w(`{}`), w(`{"minLength":1}`), []string{" n minLength none is written, expected 1"}},
		"fewer items":                 {w(`{"maxItems":50}`), w(`{"maxItems":10}`), []string{" n maxItems 50 is written, expected 10"}},
		"a maximum with a fraction":   {w(`{"maximum":1.5}`), w(`{"maximum":1.50}`), nil},
		"a format":                    {w(`{"type":["string"],"format":"date-time"}`), w(`{"type":["string"],"format":"date"}`), []string{" o format date is written, expected date-time", " n format date-time is written, expected date"}},

		"protobuf: field added":           {m(id), m(id + field("n", 2, "STRING")), nil},
		"protobuf: field removed":         {m(id), m(""), []string{"id - field 1 removed and free for another meaning"}},
		"protobuf: field reserved":        {m(id), m("reserved_range{start:1 end:2}"), nil},
		"protobuf: field renamed":         {m(id), m(field("key", 1, "INT64")), []string{"id - field 1 removed and free for another meaning"}},
		"protobuf: number changed":        {m(id), m(field("id", 2, "INT64")), []string{"id - field number was 1, is 2"}},
		"protobuf: zigzag now":            {m(field("n", 1, "INT32")), m(field("n", 1, "SINT32")), []string{"n o format sint32 is written, expected int32", "n n format int32 is written, expected sint32"}},
		"protobuf: text is bytes now":     {m(field("n", 1, "STRING")), m(field("n", 1, "BYTES")), []string{"n o format base64 is written, expected none", "n n format none is written, expected base64"}},
		"protobuf: repeated now":          {m(field("n", 1, "BOOL")), m(`field{name:"n" number:1 label:LABEL_REPEATED type:TYPE_BOOL}`), []string{"n o array is written, expected boolean", "n n boolean is written, expected array"}},
		"protobuf: into a oneof":          {m(id), m(`oneof_decl{name:"one"} field{name:"id" number:1 label:LABEL_OPTIONAL type:TYPE_INT64 oneof_index:0}`), []string{"id - oneof was none, is one"}},
		"protobuf: value added and gone":  {m(`field{name:"k" number:1 label:LABEL_OPTIONAL type:TYPE_ENUM type_name:".p.Kind"}`), m(`field{name:"k" number:1 label:LABEL_OPTIONAL type:TYPE_ENUM type_name:".p.More"}`), []string{"k - value KIND_NONE = 0 removed or changed", "k - value KIND_TEA = 1 removed or changed"}},
		"protobuf: field within":          {m(`field{name:"p" number:1 label:LABEL_REPEATED type:TYPE_MESSAGE type_name:".p.Part"}`), m(`field{name:"p" number:1 label:LABEL_REPEATED type:TYPE_MESSAGE type_name:".p.Part"}`), nil},
		"protobuf: a message is text now": {m(`field{name:"p" number:1 label:LABEL_OPTIONAL type:TYPE_MESSAGE type_name:".p.Part"}`), m(field("p", 1, "STRING")), []string{"p o string is written, expected object", "p n object is written, expected string"}},
		"protobuf instead of JSON":        {of[struct{}](), m(""), []string{" - content type was application/json, is application/protobuf"}},
	}
}

// TestCompare: each change is found, with the consumers that it breaks, and no other.
func TestCompare(t *testing.T) {
	t.Parallel()
	for name, tc := range comparisons(t) {
		var got []string
		for _, b := range schema.Compare("order.placed.v1", tc.before, tc.now) {
			who := b.Who[:min(1, len(b.Who))]
			if who == "" {
				who = "-"
			}
			got = append(got, fmt.Sprint(b.Field, " ", who, " ", b.Rule))
			if b.Topic != "order.placed.v1" || !strings.Contains(b.Do, "publish order.placed.v2") && !strings.Contains(b.Do, "reserved 1;") {
				t.Errorf("%s: %+v, want it to name the topic and what to do", name, b)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, tc.want)
		}
		// As a file the schema of before says the same.
		text, err := json.Marshal(tc.before)
		if err != nil {
			t.Fatal(err)
		}
		var from []string
		for _, b := range schema.Compare("order.placed.v1", written(t, string(text)), tc.now) {
			from = append(from, b.Rule)
		}
		if len(from) != len(tc.want) {
			t.Errorf("%s: from a file %q, want %q", name, from, tc.want)
		}
	}
}

// TestCheck: a folder of a release is compared topic by topic.
func TestCheck(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const old = `{"type":["object"],"properties":{"id":{"type":["integer"]}},"required":["id"]}`
	same, other := written(t, old), written(t, `{"type":["object"]}`)
	for name, tc := range map[string]struct {
		dir  fstest.MapFS
		now  map[string]*schema.Schema
		want string
		err  string
	}{
		"the same":         {fstest.MapFS{"a.v1.json": file(old)}, map[string]*schema.Schema{"a.v1": same, "b.v1": other}, "", ""},
		"a break":          {fstest.MapFS{"a.v1.json": file(old)}, map[string]*schema.Schema{"a.v1": other}, "a.v1: id: old consumers cannot read new events: a required field may be missing: leave it and add an optional field, or publish a.v2 and read this one through messaging.Upcast", ""},
		"a topic gone":     {fstest.MapFS{"a.v1.json": file(old)}, map[string]*schema.Schema{"a.v2": same}, "a.v1: topic removed: read it for one more release, beside the version that follows it (messaging.Upcast)", ""},
		"a version is old": {fstest.MapFS{"a.v1.json": file(old), "a.v2.json": file(old)}, map[string]*schema.Schema{"a.v2": same}, "", ""},
		"the newest gone":  {fstest.MapFS{"a.v1.json": file(old), "a.v2.json": file(old)}, map[string]*schema.Schema{"a.v1": same}, "a.v2: topic removed: read it for one more release, beside the version that follows it (messaging.Upcast)", ""},
		"another name":     {fstest.MapFS{"a.v1.json": file(old), "ab.v2.json": file(old)}, map[string]*schema.Schema{"ab.v2": same}, "a.v1: topic removed: read it for one more release, beside the version that follows it (messaging.Upcast)", ""},
		"no files":         {fstest.MapFS{"README.md": file("")}, nil, "", "schema: no files TOPIC.json to compare with: expected those that a release wrote: file does not exist"},
		"no schema":        {fstest.MapFS{"a.v1.json": file("[]")}, nil, "", "schema: a.v1.json: expected a schema as events schema prints it: "},
	} {
		breaks, err := schema.Check(fs.FS(tc.dir), tc.now)
		var lines []string
		for _, b := range breaks {
			lines = append(lines, b.String())
		}
		if got := strings.Join(lines, "\n"); got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%s: %q, %v, want %q, %q", name, got, err, tc.want, tc.err)
		}
	}
}
