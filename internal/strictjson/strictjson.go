// Package strictjson reads JSON from outside. It refuses what encoding/json accepts although two
// readers may understand it differently: duplicate keys, keys that differ from a field's name only
// in case, invalid UTF-8 or half a surrogate pair, a NUL, which PostgreSQL cannot store, and values
// nested deeper than MaxDepth.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may be nested, as in .NET's System.Text.Json. Documents
// that people design have fewer than ten levels; encoding/json takes 10,000, each on the stack.
const MaxDepth = 64

// maxLocation bounds a location in bytes, whatever the client sends.
const maxLocation = 200

// An Error says what is wrong with a document, and where.
type Error struct {
	Location string // for example "items[0].sku"; "" is the whole document
	Message  string
}

func (e *Error) Error() string {
	if e.Location == "" {
		return e.Message
	}
	return e.Location + ": " + e.Message
}

// Unmarshal is json.Unmarshal that also refuses what the package comment lists and, unless unknown
// is true, keys without a field in v. Its errors are of type *Error and do not contain values,
// which may be secret, unless an UnmarshalJSON method's do. After an error v may be partly filled.
func Unmarshal(data []byte, v any, unknown bool) error {
	if err := Check(data, reflect.TypeOf(v), unknown); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		got, _, _ := strings.Cut(mismatch.Value, " ") // without the number itself
		return &Error{mismatch.Field, fmt.Sprintf("expected %s, got %s", kindOf(mismatch.Type), got)}
	}
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
		return &Error{"", "expected JSON: " + err.Error()}
	}
	if err != nil { // of a type that reads JSON in its own way
		return &Error{"", err.Error()}
	}
	return nil
}

// Check does what Unmarshal does before json.Unmarshal: data that passes may still not be JSON.
// into is the type that data is for, or a pointer to it; nothing is known of nil and of interfaces.
func Check(data []byte, into reflect.Type, unknown bool) error {
	if !utf8.Valid(data) {
		return &Error{"", "expected UTF-8"}
	}
	c := checker{data: data, unknown: unknown}
	if err := c.value(into); err != nil && !c.malformed {
		return err
	}
	return nil
}

// A checker walks through a document once. It leaves invalid JSON to encoding/json, which reads the
// whole document before it stores anything.
type checker struct {
	data      []byte
	depth     int
	unknown   bool
	malformed bool
}

func (c *checker) value(t reflect.Type) *Error {
	t = known(t)
	switch c.next() {
	case '{':
		return c.object(t)
	case '[':
		if t != nil && t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			t = nil
		}
		return c.array(t)
	case '"':
		raw, escaped := c.text()
		if escaped {
			_, err := c.unescape(raw)
			return err
		}
		return nil
	}
	end := bytes.IndexAny(c.data, ",]} \t\r\n")
	if end < 0 {
		end = len(c.data)
	}
	c.data = c.data[end:]
	return nil
}

// enter goes into an object or array, which may be empty.
func (c *checker) enter(end byte) (empty bool, err *Error) {
	if c.depth++; c.depth > MaxDepth {
		return true, &Error{"", "expected at most " + strconv.Itoa(MaxDepth) + " levels"}
	}
	c.data = c.data[1:]
	if c.next() == end {
		c.leave()
		return true, nil
	}
	return false, nil
}

func (c *checker) leave() {
	c.depth--
	c.data = c.data[1:]
}

func (c *checker) array(t reflect.Type) *Error {
	if empty, err := c.enter(']'); empty {
		return err
	}
	if t != nil {
		t = t.Elem()
	}
	for i := 0; ; i++ {
		if err := c.value(t); err != nil {
			return err.In("[" + strconv.Itoa(i) + "]")
		}
		if more, err := c.more(']'); !more {
			return err
		}
	}
}

func (c *checker) object(t reflect.Type) *Error {
	if empty, err := c.enter('}'); empty {
		return err
	}
	var fields fields
	var element reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		fields = fieldsOf(t)
	} else if t != nil && t.Kind() == reflect.Map {
		element = t.Elem()
	}
	seen := map[string]struct{}{} // on the stack, for up to eight keys
	for {
		if c.next() != '"' {
			return c.broken()
		}
		raw, escaped := c.text()
		if raw == nil {
			return c.broken()
		}
		var name string
		var err *Error
		i := -1
		if escaped {
			name, err = c.unescape(raw)
		} else if i = fields.find(raw[1 : len(raw)-1]); i < 0 {
			name = string(raw[1 : len(raw)-1])
		}
		if fields != nil && err == nil {
			if i < 0 {
				i, err = fields.search(name, c.unknown)
			}
			if element = nil; i >= 0 {
				name, element = fields[i].name, fields[i].t
			}
		}
		if _, twice := seen[name]; twice && err == nil {
			err = &Error{shown(name), "expected this key once"}
		}
		seen[name] = struct{}{}
		if err != nil {
			return err
		}
		if c.next() != ':' {
			return c.broken()
		}
		c.data = c.data[1:]
		if err := c.value(element); err != nil {
			return err.In(shown(name))
		}
		if more, err := c.more('}'); !more {
			return err
		}
	}
}

// more skips the comma, or the end, after an element.
func (c *checker) more(end byte) (bool, *Error) {
	b := c.next()
	if b != ',' && b != end {
		return false, c.broken()
	}
	if b == end {
		c.leave()
		return false, nil
	}
	c.data = c.data[1:]
	return true, nil
}

// text reads a string, with its quotes. It is nil when there is no end.
func (c *checker) text() (raw []byte, escaped bool) {
	for end := 1; end < len(c.data); end++ {
		switch c.data[end] {
		case '"':
			raw, c.data = c.data[:end+1], c.data[end+1:]
			return raw, escaped
		case '\\':
			escaped = true
			end++
		}
	}
	c.malformed, c.data = true, nil
	return nil, false
}

func (c *checker) unescape(raw []byte) (s string, err *Error) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		switch r := unicodeEscape(raw[i-1:]); {
		case r == 0:
			return "", &Error{"", "expected text without NUL"}
		case utf16.IsSurrogate(r) && utf16.DecodeRune(r, unicodeEscape(raw[min(i+5, len(raw)):])) == utf8.RuneError:
			return "", &Error{"", "expected surrogates in pairs"}
		case utf16.IsSurrogate(r):
			i += 6
		}
	}
	if json.Unmarshal(raw, &s) != nil {
		return "", c.broken()
	}
	return s, nil
}

// unicodeEscape reads the \u and four digits that raw begins with; -1 when it does not.
func unicodeEscape(raw []byte) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// next is the next byte that is no space, 0 at the end.
func (c *checker) next() byte {
	c.data = bytes.TrimLeft(c.data, " \t\r\n")
	if len(c.data) == 0 {
		return 0
	}
	return c.data[0]
}

func (c *checker) broken() *Error {
	c.malformed = true
	return &Error{}
}

// In adds the parent of e's location, and returns e.
func (e *Error) In(parent string) *Error {
	dot := "."
	if e.Location == "" || e.Location[0] == '[' {
		dot = ""
	}
	e.Location = parent + dot + e.Location
	if len(e.Location) > maxLocation {
		e.Location = strings.ToValidUTF8(e.Location[:maxLocation], "") + "…"
	}
	return e
}

// shown is a key as errors show it.
func shown(key string) string {
	return strings.Trim(strconv.Quote(key[:min(len(key), 60)]), `"`)
}
