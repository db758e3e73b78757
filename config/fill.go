package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// filler fills one target.
type filler struct {
	*layers
	target *target
	slots  []*slot
}

// slot is one leaf value of a target.
type slot struct {
	target      *target
	key, origin string
	secret      bool
	value       reflect.Value // of the leaf's type
	live        liveField     // nil when the field is not live
}

// candidate is a source's node at one key; candidates are ordered highest first.
type candidate struct {
	node     *node
	plain    bool // a plain value, looked at for a service
	defaults bool // from Sources.Defaults, which may set a key tagged own for all services
}

func (f *filler) root() []candidate {
	var out []candidate
	for _, c := range f.list {
		if f.target.Service != "" {
			out = append(out, candidate{c.node.child(servicesKey).child(f.target.Service), false, c.defaults})
		}
		out = append(out, candidate{c.node, f.target.Service != "", c.defaults})
	}
	return out
}

func below(candidates []candidate, name string) []candidate {
	var out []candidate
	for _, c := range candidates {
		if n := c.node.child(name); n != nil {
			out = append(out, candidate{n, c.plain, c.defaults})
		}
	}
	return out
}

// structValue fills and validates the struct v. It returns false when there is a problem in it.
func (f *filler) structValue(fields []*field, v reflect.Value, from []candidate, path []string) bool {
	ok := true
	for _, field := range fields {
		at := append(slices.Clip(path), field.name)
		if !f.value(field, v.FieldByIndex(field.index), below(from, field.name), at) {
			ok = false
		}
	}
	if ok {
		ok = f.validate(v, path)
	}
	return ok
}

func (f *filler) value(field *field, v reflect.Value, from []candidate, path []string) bool {
	switch field.kind {
	case kindGroup:
		return f.structValue(field.children, v, from, path)
	case kindMap:
		return f.mapValue(field, v, from, path)
	}
	return f.leafValue(field, v, from, path)
}

// mapValue merges the entries of all sources into a new map.
func (f *filler) mapValue(field *field, v reflect.Value, from []candidate, path []string) bool {
	if field.hasDef {
		pairs, _ := splitPairs(field.def, "default") // tried by the schema
		from = append(from, candidate{node: pairs})
	}
	names := map[string]bool{}
	for _, c := range from {
		if c.node.kind == kindMapping {
			for _, name := range c.node.names {
				names[name] = names[name] || field.elem.kind == kindGroup || c.node.fields[name].hasValue()
			}
		}
	}
	for _, key := range v.MapKeys() {
		names[key.String()] = true
	}
	maps.DeleteFunc(names, func(_ string, exists bool) bool { return !exists })
	if len(names) == 0 {
		if field.required {
			f.missing(field, path)
		}
		return !field.required
	}
	ok := true
	inherited := f.inherited(field)
	out := reflect.MakeMap(field.typ)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		key := reflect.ValueOf(name).Convert(field.typ.Key())
		entry := reflect.New(field.typ.Elem()).Elem()
		if preset := v.MapIndex(key); preset.IsValid() {
			entry.Set(preset)
		}
		if !f.value(field.elem, entry, append(below(from, name), inherited...), append(slices.Clip(path), name)) {
			ok = false
		}
		out.SetMapIndex(key, entry)
	}
	v.Set(out)
	return ok
}

// inherited returns the values to which the entries of a map fall back.
func (f *filler) inherited(field *field) (out []candidate) {
	for _, c := range f.root() {
		from := newMapping("")
		for _, pair := range field.inherit {
			if n := c.node.child(pair[1]); n != nil {
				from.set(pair[0], n)
			}
		}
		if len(from.names) > 0 {
			out = append(out, candidate{from, c.plain, c.defaults})
		}
	}
	return out
}

// leafValue takes the first candidate that has a value. Problems with the candidates have been
// reported by check.
func (f *filler) leafValue(field *field, v reflect.Value, from []candidate, path []string) bool {
	key := strings.Join(path, ".")
	shared := field.own && len(f.loaded) > 1
	from = slices.DeleteFunc(from, func(c candidate) bool {
		return !c.node.hasValue() || (shared && c.plain && !c.defaults)
	})
	s := &slot{target: f.target, key: key, secret: field.secret, origin: "not set"}
	preset := f.preset(field, v)
	switch {
	case len(from) > 0:
		value, err := decode(field.leaf, from[0].node)
		if err != nil {
			return false
		}
		s.value, s.origin = value, from[0].node.origin
	case !preset.IsZero():
		s.value, s.origin = preset, "set in code"
	case field.hasDef:
		s.value, _ = decodeText(field.leaf, field.def) // tried by the schema
		s.origin = "default"
	default:
		s.value = preset
	}
	if field.required && isEmpty(s) {
		f.missing(field, path)
		return false
	}
	if field.live {
		s.live = v.Addr().Interface().(liveField)
		s.live.liveSet(s.value, true)
	} else {
		v.Set(s.value)
	}
	f.slots = append(f.slots, s)
	return true
}

func (f *filler) preset(field *field, v reflect.Value) reflect.Value {
	if field.live {
		v = v.Addr().Interface().(liveField).liveGet()
	}
	out := reflect.New(field.leaf).Elem()
	out.Set(v)
	return out
}

// isEmpty reports whether s is not set or is an empty text or list.
func isEmpty(s *slot) bool {
	switch s.value.Kind() {
	case reflect.String, reflect.Slice:
		return s.value.Len() == 0
	case reflect.Struct, reflect.Pointer:
		return s.value.IsZero()
	}
	return s.origin == "not set"
}

// missing reports that a required value is missing, and all ways to set it.
func (f *filler) missing(field *field, path []string) {
	key := strings.Join(path, ".")
	own := ownKey(f.target.Service, key)
	variables, keys, flags := []string{EnvName(strings.TrimPrefix(own, servicesKey+"."))}, []string{own}, []string{f.flagName(own)}
	if own != key && (!field.own || len(f.loaded) < 2) {
		variables, keys, flags = append(variables, EnvName(key)), append(keys, key), append(flags, f.flagName(key))
	}
	f.problems.add(&Error{Key: own, Problem: fmt.Sprintf("required, but not set: set the environment variable %s, or %s in %s, or the flag %s",
		strings.Join(variables, " or "), strings.Join(keys, " or "), cmp.Or(f.file, "a settings file"), strings.Join(flags, " or "))})
}

func (f *filler) validate(v reflect.Value, path []string) (ok bool) {
	validator, has := reflect.TypeAssert[interface{ Validate() error }](v.Addr())
	if !has {
		return true
	}
	key := ownKey(f.target.Service, strings.Join(path, "."))
	defer func() {
		if r := recover(); r != nil {
			f.problems.add(&Error{Key: key, Problem: fmt.Sprintf("Validate panics: %v", r)})
			ok = false
		}
	}()
	if err := validator.Validate(); err != nil {
		f.problems.add(&Error{Key: key, Problem: err.Error(), cause: err})
		return false
	}
	return true
}
