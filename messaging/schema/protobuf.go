package schema

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// OfMessage returns the schema of a message as protobuf's JSON mapping writes it. Numbers of 64
// bits are strings there. Values of enumerations are names, or numbers for values that a consumer
// does not know.
func OfMessage(d protoreflect.MessageDescriptor) *Schema {
	g := &messages{root: d, open: map[protoreflect.FullName]string{}, used: map[protoreflect.FullName]bool{}, defs: map[string]*Schema{}}
	s := g.message(d)
	s.Dialect, s.Title, s.ContentType = dialect, string(d.FullName()), "application/protobuf"
	if len(g.defs) > 0 {
		s.Defs = g.defs
	}
	return s
}

type messages struct {
	root protoreflect.MessageDescriptor
	open map[protoreflect.FullName]string
	used map[protoreflect.FullName]bool
	defs map[string]*Schema
}

func (g *messages) message(d protoreflect.MessageDescriptor) *Schema {
	name := d.FullName()
	switch {
	case name == "google.protobuf.Timestamp":
		return &Schema{Type: []string{"string"}, Format: "date-time"}
	case name == "google.protobuf.Duration":
		return &Schema{Type: []string{"string"}, Format: "protobuf-duration"}
	case strings.HasPrefix(string(name), "google.protobuf.") && d != g.root: // they have JSON mappings of their own
		return &Schema{Title: string(name)}
	case g.open[name] != "":
		g.used[name] = true
		return &Schema{Ref: g.open[name]}
	}
	if g.open[name] = "#/$defs/" + string(name); d == g.root {
		g.open[name] = "#"
	}
	s := &Schema{Type: []string{"object"}, Properties: map[string]*Schema{}}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		field := g.field(f)
		field.Number = int32(f.Number())
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			field.Oneof = string(o.Name())
		}
		if f.Cardinality() == protoreflect.Required {
			s.Required = append(s.Required, f.JSONName())
		}
		s.Properties[f.JSONName()] = field
	}
	for i := range d.ReservedRanges().Len() {
		r := d.ReservedRanges().Get(i) // the end is not included
		s.Reserved = append(s.Reserved, [2]int32{int32(r[0]), int32(r[1] - 1)})
	}
	ref := g.open[name]
	if delete(g.open, name); !g.used[name] || d == g.root {
		return s
	}
	g.defs[string(name)] = s
	return &Schema{Ref: ref}
}

func (g *messages) field(f protoreflect.FieldDescriptor) *Schema {
	switch {
	case f.IsMap():
		return &Schema{Type: []string{"object"}, Additional: g.value(f.MapValue()), Format: f.MapKey().Kind().String()}
	case f.IsList():
		return &Schema{Type: []string{"array"}, Items: g.value(f)}
	}
	return g.value(f)
}

// value describes one value of f. The format of a number is its kind, since kinds with the same
// JSON differ on the wire.
func (g *messages) value(f protoreflect.FieldDescriptor) *Schema {
	switch kind := f.Kind(); kind {
	case protoreflect.BoolKind:
		return &Schema{Type: []string{"boolean"}}
	case protoreflect.StringKind:
		return &Schema{Type: []string{"string"}}
	case protoreflect.BytesKind:
		return &Schema{Type: []string{"string"}, Encoding: "base64"}
	case protoreflect.EnumKind:
		s := &Schema{Type: []string{"integer", "string"}, Format: "enum", Values: map[string]int32{}}
		for i := range f.Enum().Values().Len() {
			v := f.Enum().Values().Get(i)
			s.Values[string(v.Name())] = int32(v.Number())
		}
		return s
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return g.message(f.Message())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return &Schema{Type: []string{"integer", "string"}, Format: kind.String()}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return &Schema{Type: []string{"number", "string"}, Format: kind.String()} // NaN is a string
	default:
		return &Schema{Type: []string{"integer"}, Format: kind.String()}
	}
}
