package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/strictjson"
)

type base struct {
	Note string `json:"note"`
}

type item struct {
	SKU   string  `json:"sku"`
	Count uint8   `json:"count"`
	Price float64 `json:"price,omitempty"`
}

type order struct {
	base
	ID     int64            `json:"id"`
	Items  []item           `json:"items"`
	BySKU  map[string]item  `json:"by_sku"`
	At     time.Time        `json:"at"`
	Next   *order           `json:"next"`
	Extra  any              `json:"extra"`
	Raw    json.RawMessage  `json:"raw"`
	Plain  string           // without a tag
	Hidden string           `json:"-"`
	Grid   [2][]map[int]any `json:"grid"`
}

// nest is n arrays in each other.
func nest(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func many(n int, key func(int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"` + key(i) + `":1,`)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want string }{
		"all fields": {`{"id":1,"note":"n","items":[{"sku":"tea","count":2,"price":1.5}],"by_sku":{"tea":{"sku":"tea"},"Tea":{}},"at":"2026-01-02T03:04:05Z",` +
			`"next":{"id":2,"next":null},"extra":{"A":1,"a":2},"raw":{"x":[1]},"Plain":"p","grid":[[{"1":2}],[]]}`, ""},
		"space":                       {" \t\r\n{ \"id\" : 1 ,\n\"items\" : [ ] } \n", ""},
		"escapes":                     {`{"Plain":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 \\u0000"}`, ""},
		"escaped key":                 {`{"\u0069d":1}`, ""},
		"63 levels below":             {`{"extra":` + nest(63) + `}`, ""},
		"64 levels below":             {`{"extra":` + nest(64) + `}`, "extra[0][0]…: expected at most 64 levels"},
		"100,000 levels":              {nest(100_000), "…: expected at most 64 levels"},
		"100,000 levels, unfinished":  {strings.Repeat(`{"a":`, 100_000), "a: unknown key"},
		"key twice":                   {`{"id":1,"id":2}`, "id: expected this key once"},
		"key twice, escaped":          {`{"id":1,"\u0069\u0064":2}`, "id: expected this key once"},
		"key twice, far":              {`{"extra":{"first":1,` + many(40, strconv.Itoa) + `,"first":2}}`, "extra.first: expected this key once"},
		"key twice, both far":         {`{"extra":{` + many(40, strconv.Itoa) + `,"x":1,"x":2}}`, "extra.x: expected this key once"},
		"key twice, in a map":         {`{"by_sku":{"tea":{},"tea":{}}}`, "by_sku.tea: expected this key once"},
		"key twice, in anything":      {`{"extra":[0,{"a":{"b":1,"b":2}}]}`, "extra[1].a.b: expected this key once"},
		"key twice, in raw":           {`{"raw":{"b":1,"b":2}}`, "raw.b: expected this key once"},
		"key twice, value first":      {`{"items":[{"sku":"a"},{"sku":"b","count":1,"sku":"c"}]}`, "items[1].sku: expected this key once"},
		"empty key twice":             {`{"extra":{"":1,"":2}}`, "extra: expected this key once"},
		"capitals":                    {`{"ID":1}`, `ID: expected the key "id"`},
		"capitals, nested":            {`{"next":{"items":[{"Sku":""}]}}`, `next.items[0].Sku: expected the key "sku"`},
		"capitals, in a map of them":  {`{"by_sku":{"tea":{"SKU":"x"}}}`, `by_sku.tea.SKU: expected the key "sku"`},
		"capitals, beyond ASCII":      {`{"by_\u017fku":{}}`, `by_ſku: expected the key "by_sku"`},
		"Kelvin":                      {`{"by_s\u212Au":{}}`, "by_s\u212Au: expected the key \"by_sku\""},
		"unknown":                     {`{"id":1,"admin":true}`, "admin: unknown key"},
		"unknown, hidden":             {`{"Hidden":"x"}`, "Hidden: unknown key"},
		"unknown, long":               {`{"` + strings.Repeat("x", 1000) + `":1}`, strings.Repeat("x", 60) + ": unknown key"},
		"unknown, control characters": {`{"a\u001b[31m\n":1}`, `a\x1b[31m\n: unknown key`},
		"90,000 unknown":              {`{` + many(90_000, strconv.Itoa) + `}`, "0: unknown key"},
		"not UTF-8":                   {"{\"Plain\":\"\xff\"}", "expected UTF-8"},
		"Latin-1":                     {"{\"Plain\":\"caf\xe9\"}", "expected UTF-8"},
		"UTF-16":                      {"\xff\xfe{\x00}\x00", "expected UTF-8"},
		"overlong":                    {"{\"Plain\":\"\xc0\xaf\"}", "expected UTF-8"},
		"surrogate in UTF-8":          {"{\"Plain\":\"\xed\xa0\x80\"}", "expected UTF-8"},
		"byte order mark":             {"\ufeff{}", "expected JSON: invalid character 'ï' looking for beginning of value"},
		"NUL":                         {`{"Plain":"a\u0000b"}`, "Plain: expected text without NUL"},
		"NUL in a key":                {`{"extra":{"\u0000":1}}`, "extra: expected text without NUL"},
		"raw NUL":                     {"{\"Plain\":\"\x00\"}", `expected JSON: invalid character '\x00' in string literal`},
		"high surrogate":              {`{"Plain":"\ud83d"}`, "Plain: expected surrogates in pairs"},
		"high surrogate and a letter": {`{"Plain":"\ud83d\u0041"}`, "Plain: expected surrogates in pairs"},
		"low surrogate":               {`{"Plain":"\ude00"}`, "Plain: expected surrogates in pairs"},
		"surrogates the wrong way":    {`{"Plain":"\ude00\ud83d"}`, "Plain: expected surrogates in pairs"},
		"text behind":                 {`{} {}`, "expected JSON: invalid character '{' after top-level value"},
		"garbage behind":              {`{}x`, "expected JSON: invalid character 'x' after top-level value"},
		"nothing":                     {``, "expected JSON: unexpected end of JSON input"},
		"cut":                         {`{"id":1`, "expected JSON: unexpected end of JSON input"},
		"comment":                     {`{/**/}`, "expected JSON: invalid character '/' looking for beginning of object key string"},
		"single quotes":               {`{'id':1}`, `expected JSON: invalid character '\'' looking for beginning of object key string`},
		"comma at the end":            {`{"id":1,}`, "expected JSON: invalid character '}' looking for beginning of object key string"},
		"NaN":                         {`{"id":NaN}`, "expected JSON: invalid character 'N' looking for beginning of value"},
		"leading zero":                {`{"id":01}`, "expected JSON: invalid character '1' after object key:value pair"},
		"hexadecimal":                 {`{"id":0x10}`, "expected JSON: invalid character 'x' after object key:value pair"},
		"fraction":                    {`{"id":1.5}`, "id: expected a whole number of type int64, got number"},
		"beyond int64":                {`{"id":9223372036854775808}`, "id: expected a whole number of type int64, got number"},
		"beyond uint8":                {`{"items":[{"count":256}]}`, "items.count: expected a whole number of type uint8, got number"},
		"negative":                    {`{"items":[{"count":-1}]}`, "items.count: expected a whole number of type uint8, got number"},
		"beyond float64":              {`{"items":[{"price":1e400}]}`, "items.price: expected a number, got number"},
		"text for a number":           {`{"id":"1"}`, "id: expected a whole number of type int64, got string"},
		"array for an object":         {`{"next":[]}`, "next: expected an object, got array"},
		"object for an array":         {`{"items":{"0":{}}}`, "items: expected an array, got object"},
		"text for a list":             {`{"items":"x"}`, "items: expected an array, got string"},
		"array at the top":            {`[{"id":1}]`, "expected an object, got array"},
		"no time":                     {`{"at":true}`, "Time.UnmarshalJSON: input is not a JSON string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var v order
			err := strictjson.Unmarshal([]byte(tc.in), &v, false)
			got := ""
			if err != nil {
				got = err.Error()
			}
			before, after, cut := strings.Cut(tc.want, "…")
			if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) || !cut && got != tc.want {
				t.Errorf("Unmarshal(%.80q) = %.300q, want %q", tc.in, got, tc.want)
			}
			if _, ok := errors.AsType[*strictjson.Error](err); err != nil && !ok {
				t.Errorf("Unmarshal(%.80q) = %T, want a *strictjson.Error", tc.in, err)
			}
		})
	}
}

func TestUnknownKeysAllowed(t *testing.T) {
	t.Parallel()
	var v item
	if err := strictjson.Unmarshal([]byte(`{"sku":"a","new":{"x":[1]}}`), &v, true); err != nil || v.SKU != "a" {
		t.Errorf("with a new key: %v, %+v, want it ignored", err, v)
	}
	if err := strictjson.Unmarshal([]byte(`{"sku":"a","new":1,"new":2}`), &v, true); err == nil {
		t.Error("a new key that stands twice was taken")
	}
	if err := strictjson.Unmarshal([]byte(`{"sku":"a","SKU":"b"}`), &v, true); err == nil {
		t.Error("a field in other capitals was taken")
	}
}

// FuzzUnmarshal compares with encoding/json: what passes has an unambiguous meaning, and what has one passes.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"items":[{"sku":"tea"}],"extra":{"a":[null,true,1e5,"\ud83d\ude00"]}}`, `{"a":1,"a":2}`, `{"ID":1}`, `[[[[]]]]`, `"\u0000"`, `{"a":"\\\""}`,
		`{"extra":` + nest(64) + `}`, "\xff", `{} {}`, `{"a":{"b":[{"c":1},{"c":2,"c":3}]}}`, `1.5e+3`, `{"\u0061":1,"a":2}`, `{"by_sku":{"a":{},"A":{}}}`, `"\ud800"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var ours any
		err := strictjson.Unmarshal(data, &ours, false)
		reason := oddity(data)
		if (err == nil) != (reason == "") {
			t.Fatalf("Unmarshal(%q) = %v, but encoding/json finds %q", data, err, reason)
		}
		if err == nil {
			var theirs any
			if json.Unmarshal(data, &theirs); !reflect.DeepEqual(ours, theirs) {
				t.Fatalf("Unmarshal(%q) = %v, want %v", data, ours, theirs)
			}
		}
		var v order
		if strictjson.Unmarshal(data, &v, false) == nil && err != nil {
			t.Fatalf("Unmarshal(%q) into a struct passes, into anything: %v", data, err)
		}
	})
}

// oddity says with encoding/json's means why data is refused.
func oddity(data []byte) string {
	if !json.Valid(data) {
		return "no JSON"
	}
	if !bytes.Equal(data, bytes.ToValidUTF8(data, []byte("?"))) {
		return "not UTF-8"
	}
	var v any
	if json.Unmarshal(data, &v) != nil {
		return "not to be held"
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []map[string]bool // nil for an array
	key := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		s, text := token.(string)
		if text && strings.ContainsRune(s, 0) {
			return "NUL"
		}
		if text && strings.ContainsRune(s, '\ufffd') && !bytes.Contains(data, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(data), []byte(`\ufffd`)) {
			return "surrogate"
		}
		in := len(open) > 0 && open[len(open)-1] != nil
		switch {
		case in && key && text:
			if open[len(open)-1][s] {
				return "twice"
			}
			open[len(open)-1][s] = true
			key = false
			continue
		case token == json.Delim('{'):
			open = append(open, map[string]bool{})
		case token == json.Delim('['):
			open = append(open, nil)
		case token == json.Delim('}'), token == json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > strictjson.MaxDepth {
			return "deep"
		}
		key = len(open) > 0 && open[len(open)-1] != nil
	}
	return ""
}

func BenchmarkCheck(b *testing.B) {
	data := []byte(`{"id":1,"items":[{"sku":"tea","count":2,"price":1.5},{"sku":"coffee","count":1}],"at":"2026-01-02T03:04:05Z"}`)
	b.Run("kaptar", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := strictjson.Unmarshal(data, new(order), false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(data, new(order)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
