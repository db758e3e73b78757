package strictjson

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

type field struct {
	name string
	t    reflect.Type
}

type fields []field

// find returns the number of the field called name, -1 if there is none.
func (f fields) find(name []byte) int {
	return slices.IndexFunc(f, func(one field) bool { return one.name == string(name) })
}

// search is find for an unusual name, with the error for one that is refused.
func (f fields) search(name string, unknown bool) (int, *Error) {
	if i := f.find([]byte(name)); i >= 0 {
		return i, nil
	}
	if i := slices.IndexFunc(f, func(one field) bool { return strings.EqualFold(one.name, name) }); i >= 0 {
		return -1, &Error{shown(name), "expected the key " + strconv.Quote(f[i].name)}
	}
	if !unknown {
		return -1, &Error{shown(name), "unknown key"}
	}
	return -1, nil
}

// tables holds the fields of struct types.
var tables sync.Map // of reflect.Type to fields

// known returns the type that t points to, or nil if it decodes JSON by itself.
func known(t reflect.Type) reflect.Type {
	for ; t != nil; t = t.Elem() {
		if t.Kind() == reflect.Interface || own(t) {
			return nil
		}
		if t.Kind() != reflect.Pointer {
			return t
		}
	}
	return nil
}

func own(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fieldsOf returns the fields of a struct as encoding/json names them. If embedded structs have
// fields of one name, all are listed, so that no meaningful key is refused.
func fieldsOf(t reflect.Type) fields {
	if made, ok := tables.Load(t); ok {
		list, _ := made.(fields)
		return list
	}
	list := collect(t, fields{}, map[reflect.Type]bool{})
	tables.Store(t, list)
	return list
}

func collect(t reflect.Type, list fields, done map[reflect.Type]bool) fields {
	if done[t] { // it embeds itself
		return list
	}
	done[t] = true
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if f.Anonymous && name == "" {
			if e := known(f.Type); e != nil && e.Kind() == reflect.Struct {
				list = collect(e, list, done)
				continue
			}
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		list = append(list, field{cmp.Or(name, f.Name), f.Type})
	}
	return list
}

// kindOf names what a Go type is in JSON.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number of type " + t.Kind().String()
}
