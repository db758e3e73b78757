// Package schema describes the data of events as JSON Schema 2020-12, compares the schemas of two
// releases, and writes AsyncAPI documents. It derives schemas from Go types and from protobuf
// descriptors.
//
// An application rarely calls it: messaging.Topic.Schema makes a schema, and the commands "events
// schema", "events check" and "events asyncapi" print and compare them.
package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Schema holds the keywords of JSON Schema that describe the data of events, and a few of its own
// that start with x-. The zero value accepts any value.
type Schema struct {
	Dialect    string             `json:"$schema,omitempty"`
	ID         string             `json:"$id,omitempty"`
	Ref        string             `json:"$ref,omitempty"` // # or #/$defs/NAME
	Title      string             `json:"title,omitempty"`
	Type       Types              `json:"type,omitempty"`
	Format     string             `json:"format,omitempty"`
	Encoding   string             `json:"contentEncoding,omitempty"`
	Enum       []any              `json:"enum,omitempty"`
	Minimum    json.Number        `json:"minimum,omitempty"`
	Maximum    json.Number        `json:"maximum,omitempty"`
	MinLength  json.Number        `json:"minLength,omitempty"`
	MaxLength  json.Number        `json:"maxLength,omitempty"`
	MinItems   json.Number        `json:"minItems,omitempty"`
	MaxItems   json.Number        `json:"maxItems,omitempty"`
	Properties map[string]*Schema `json:"properties,omitempty"`
	Required   []string           `json:"required,omitempty"` // sorted
	Additional *Schema            `json:"additionalProperties,omitempty"`
	Items      *Schema            `json:"items,omitempty"`
	Defs       map[string]*Schema `json:"$defs,omitempty"`

	// These are set for protobuf only. At the root: the content type of events. For a field: its
	// number and its oneof. For an enumeration: its values. For a message: the ranges of field
	// numbers, ends included, that must not be used again.
	ContentType string           `json:"x-content-type,omitempty"`
	Number      int32            `json:"x-protobuf-number,omitempty"`
	Oneof       string           `json:"x-protobuf-oneof,omitempty"`
	Values      map[string]int32 `json:"x-protobuf-values,omitempty"`
	Reserved    [][2]int32       `json:"x-protobuf-reserved,omitempty"`
}

// Types are the types that a value may have, sorted; none means all. In JSON a single one is a
// string.
type Types []string

// MarshalJSON implements json.Marshaler.
func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Types) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*t = Types{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(t))
}

const dialect = "https://json-schema.org/draft/2020-12/schema"

// Of returns the schema of what encoding/json writes for a value of type t. A field without
// omitempty or omitzero is required, since it is always written. Of does not see what only code
// knows: ranges in Validate methods are missing, and a type with its own MarshalJSON accepts any
// value. A type that contains itself is described once, as an object or null.
func Of(t reflect.Type) *Schema {
	g := &generator{open: map[reflect.Type]string{}, used: map[reflect.Type]bool{}, root: t, defs: map[string]*Schema{}}
	s := *g.of(t)
	s.Dialect, s.Title = dialect, t.Name()
	if len(g.defs) > 0 {
		s.Defs = g.defs
	}
	return &s
}

// A generator makes the schema of one type and of the types in it.
type generator struct {
	root reflect.Type
	open map[reflect.Type]string // types being described, with the reference to them
	used map[reflect.Type]bool   // those that are referred to
	defs map[string]*Schema
}

var (
	timeType      = reflect.TypeFor[time.Time]()
	numberType    = reflect.TypeFor[json.Number]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	textType      = reflect.TypeFor[encoding.TextMarshaler]()
)

func (g *generator) of(t reflect.Type) *Schema {
	is := func(i reflect.Type) bool { return t.Implements(i) || reflect.PointerTo(t).Implements(i) }
	switch {
	case t == timeType:
		return &Schema{Type: []string{"string"}, Format: "date-time"}
	case t == numberType:
		return &Schema{Type: []string{"number"}}
	case t.Kind() == reflect.Pointer:
		return nullable(g.of(t.Elem()))
	case is(marshalerType):
		return &Schema{}
	case is(textType):
		return &Schema{Type: []string{"string"}}
	}
	switch t.Kind() {
	case reflect.Bool:
		return &Schema{Type: []string{"boolean"}}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		most := int64(1)<<(t.Bits()-1) - 1
		return &Schema{Type: []string{"integer"}, Minimum: number(-most - 1), Maximum: number(most)}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return &Schema{Type: []string{"integer"}, Minimum: "0", Maximum: number(^uint64(0) >> (64 - t.Bits()))}
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: []string{"number"}}
	case reflect.String:
		return &Schema{Type: []string{"string"}}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &Schema{Type: []string{"null", "string"}, Encoding: "base64"}
		}
		return &Schema{Type: []string{"array", "null"}, Items: g.of(t.Elem())}
	case reflect.Array:
		return &Schema{Type: []string{"array"}, Items: g.of(t.Elem()), MinItems: number(t.Len()), MaxItems: number(t.Len())}
	case reflect.Map:
		return &Schema{Type: []string{"null", "object"}, Additional: g.of(t.Elem())}
	case reflect.Struct:
		return g.object(t)
	}
	return &Schema{} // an interface
}

// object describes a struct, or returns a reference to its description.
func (g *generator) object(t reflect.Type) *Schema {
	if ref, within := g.open[t]; within {
		g.used[t] = true
		return &Schema{Ref: ref}
	}
	name := t.Name()
	for n := 2; g.defs[name] != nil; n++ { // a type of the same name in another package
		name = fmt.Sprint(t.Name(), n)
	}
	if g.open[t] = "#/$defs/" + name; t == g.root {
		g.open[t] = "#"
	}
	s := &Schema{Type: []string{"object"}, Properties: map[string]*Schema{}}
	g.fields(t, s, false)
	slices.Sort(s.Required)
	ref := g.open[t]
	delete(g.open, t)
	if !g.used[t] {
		return s
	}
	nullable(s)
	if t == g.root {
		return s
	}
	g.defs[name] = s
	return &Schema{Ref: ref}
}

// fields adds the fields of struct t to s. Those of embedded structs come last, as outer fields
// hide them.
func (g *generator) fields(t reflect.Type, s *Schema, optional bool) {
	var embedded []func()
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner, pointer := f.Type, f.Type.Kind() == reflect.Pointer
		if pointer {
			inner = inner.Elem()
		}
		if f.Anonymous && name == "" && inner.Kind() == reflect.Struct {
			embedded = append(embedded, func() { g.fields(inner, s, optional || pointer) })
			continue
		}
		if name == "" {
			name = f.Name
		}
		if f.Tag.Get("json") == "-" || !f.IsExported() || s.Properties[name] != nil {
			continue
		}
		field := g.of(f.Type)
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		if omitted := has("omitempty") || has("omitzero"); omitted {
			field.Type = slices.DeleteFunc(field.Type, func(t string) bool { return t == "null" })
		} else if !optional {
			s.Required = append(s.Required, name)
		}
		if has("string") {
			field = &Schema{Type: []string{"string"}}
		}
		s.Properties[name] = field
	}
	for _, add := range embedded {
		add()
	}
}

// nullable adds null to the types of s, unless s is a reference or accepts everything.
func nullable(s *Schema) *Schema {
	if len(s.Type) > 0 && !slices.Contains(s.Type, "null") {
		s.Type = append(s.Type, "null")
		slices.Sort(s.Type)
	}
	return s
}

func number[T int | int64 | uint64](n T) json.Number { return json.Number(fmt.Sprint(n)) }
