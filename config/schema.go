package config

import (
	"cmp"
	"encoding"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

// servicesKey is the key that has the own values of services.
const servicesKey = "services"

// field is one key of a settings struct and, through children and elem, all keys below it.
type field struct {
	name     string
	kind     fieldKind
	typ      reflect.Type // the Go field's own type
	leaf     reflect.Type // kindLeaf: the type that a text is decoded to: T of Live[T], else typ
	index    []int        // of the Go field in its parent struct
	children []*field     // kindGroup; for a kindMap only elem
	elem     *field       // kindMap: the entries
	owner    string       // the Go field's name, for errors about the struct itself

	def, help                           string
	hasDef, required, own, live, secret bool
	empty                               bool        // an empty environment variable is a value
	services                            bool        // kindMap: most of the entries are named after services
	dotted, dashed                      bool        // kindMap: most names of entries are words joined by dots or dashes
	inherit                             [][2]string // kindMap: fields of the entries, and the plain keys to which they fall back
}

type fieldKind int

const (
	kindLeaf fieldKind = iota
	kindGroup
	kindMap
)

var (
	typeSecret          = reflect.TypeFor[Secret]()
	typeDuration        = reflect.TypeFor[time.Duration]()
	typeURL             = reflect.TypeFor[url.URL]()
	typeTextUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	typeLive            = reflect.TypeFor[liveField]()
)

// target is a Target with its schema.
type target struct {
	Target
	*schema
	preset reflect.Value // what Into held before Load
}

// schema is what one struct type declares.
type schema struct{ fields []*field }

// scope has all targets of one Load, and indexes of their services and fields.
type scope struct {
	targets  []*target
	services []string            // the names of all targets' services, sorted
	loaded   []string            // those that are not SchemaOnly
	own      map[string][]*field // the fields of each service's targets
	plain    []*field            // the fields of all targets, each struct type once: plain keys apply to them
	schemas  []*schema           // the struct types, each once
}

func newScope(in []Target) (*scope, error) {
	p, sc := &problems{}, &scope{own: map[string][]*field{}}
	services, loaded, known := map[string]bool{}, map[string]bool{}, map[reflect.Type]*schema{}
	for i, t := range in {
		v := reflect.ValueOf(t.Into)
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
			p.add(&Error{Problem: fmt.Sprintf("target %d (service %q): Into is %T, expected a pointer to a struct", i+1, t.Service, t.Into)})
			continue
		}
		typ := v.Elem().Type()
		parsed := known[typ]
		if parsed == nil {
			parsed = &schema{parseSchema(typ, p)}
			known[typ] = parsed
			sc.schemas = append(sc.schemas, parsed)
			sc.plain = append(sc.plain, parsed.fields...)
		}
		preset := reflect.New(typ).Elem()
		preset.Set(v.Elem())
		sc.targets = append(sc.targets, &target{t, parsed, preset})
		sc.own[t.Service] = append(sc.own[t.Service], parsed.fields...)
		if t.Service != "" {
			services[t.Service] = true
			loaded[t.Service] = loaded[t.Service] || !t.SchemaOnly
		}
	}
	sc.services = slices.Sorted(maps.Keys(services))
	sc.loaded = slices.DeleteFunc(slices.Clone(sc.services), func(name string) bool { return !loaded[name] })
	sc.check(p)
	return sc, p.err()
}

// cutService splits "order-service.listen"; ok is false when key does not begin with a service.
func (sc *scope) cutService(key string) (service, rest string, ok bool) {
	for i, c := range key {
		if c == '.' {
			if _, ok := slices.BinarySearch(sc.services, key[:i]); ok {
				service, rest = key[:i], key[i+1:]
			}
		}
	}
	return service, rest, service != ""
}

func parseSchema(typ reflect.Type, p *problems) []*field {
	parser := schemaParser{problems: p}
	fields := parser.structFields(typ, typ.String(), nil)
	for _, f := range fields {
		if f.name == servicesKey {
			parser.failf(f.owner, `the key "services" is reserved for services' own values`)
		}
	}
	return fields
}

type schemaParser struct {
	problems *problems
	open     []reflect.Type // structs being parsed, against recursion without end
}

func (s *schemaParser) failf(where, format string, args ...any) {
	s.problems.add(&Error{Problem: where + ": " + fmt.Sprintf(format, args...)})
}

// structFields returns the keys of struct t. where names it in errors, and index is its position in
// the struct that embeds it.
func (s *schemaParser) structFields(t reflect.Type, where string, index []int) []*field {
	if slices.Contains(s.open, t) {
		s.failf(where, "%s contains itself", t)
		return nil
	}
	s.open = append(s.open, t)
	defer func() { s.open = s.open[:len(s.open)-1] }()
	var out []*field
	add := func(f *field) {
		if slices.ContainsFunc(out, func(other *field) bool { return other.name == f.name }) {
			s.failf(f.owner, "the key %q is declared twice in one struct", f.name)
			return
		}
		out = append(out, f)
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clip(index), i)
		tag, tagged := sf.Tag.Lookup("config")
		if tag == "-" {
			continue
		}
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct && !tagged && !isLeaf(sf.Type) {
			for _, f := range s.structFields(sf.Type, where+"."+sf.Name, at) {
				add(f)
			}
			continue
		}
		if !sf.IsExported() {
			if tagged {
				s.failf(where+"."+sf.Name, "an unexported field cannot be a setting")
			}
			continue
		}
		f := &field{index: at, typ: sf.Type, owner: where + "." + sf.Name, help: sf.Tag.Get("help")}
		s.options(f, sf.Name, tag)
		for pair := range strings.FieldsFuncSeq(sf.Tag.Get("inherit"), func(r rune) bool { return r == ',' }) {
			name, from, _ := strings.Cut(pair, "=")
			f.inherit = append(f.inherit, [2]string{name, cmp.Or(from, name)})
		}
		if s.shape(f) {
			s.defaults(f, sf.Tag.Get("default"))
			add(f)
		}
	}
	return out
}

func (s *schemaParser) options(f *field, goName, tag string) {
	name, options, _ := strings.Cut(tag, ",")
	f.name = cmp.Or(name, snakeCase(goName))
	if strings.Trim(f.name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		s.failf(f.owner, "key %q: expected lower-case letters, digits, _ and -", f.name)
	}
	known := map[string]*bool{"required": &f.required, "own": &f.own, "empty": &f.empty, "services": &f.services, "dotted": &f.dotted, "dashed": &f.dashed}
	for option := range strings.SplitSeq(options, ",") {
		switch is := known[option]; {
		case is != nil:
			*is = true
		case option == "live" && !reflect.PointerTo(f.typ).Implements(typeLive):
			s.failf(f.owner, "option live: the field's type must be config.Live[%s]", f.typ)
		case option != "" && option != "live":
			s.failf(f.owner, "unknown option %q in the config tag, expected required, own, empty, services, dotted or dashed", option)
		}
	}
}

// shape sets the kind of f and the fields below it; false when the type cannot be a setting.
func (s *schemaParser) shape(f *field) bool {
	t := f.typ
	switch {
	case reflect.PointerTo(t).Implements(typeLive):
		f.live = true
		f.leaf = reflect.New(t).Interface().(liveField).liveType()
		if !isLeaf(f.leaf) {
			s.failf(f.owner, "config.Live cannot hold a %s, expected a type with one line of text", f.leaf)
			return false
		}
	case isLeaf(t):
		f.leaf = t
	case t.Kind() == reflect.Struct:
		f.kind = kindGroup
		f.children = s.structFields(t, f.owner, nil)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		f.kind = kindMap
		f.elem = &field{name: "<name>", help: f.help, typ: t.Elem(), owner: f.owner + "[]"}
		f.children = []*field{f.elem}
		if !s.shape(f.elem) {
			return false
		}
		if f.elem.kind == kindMap {
			s.failf(f.owner, "a map of maps cannot be a setting")
			return false
		}
	default:
		s.failf(f.owner, "type %s cannot be a setting", t)
		return false
	}
	switch {
	case f.kind == kindLeaf:
		f.secret = isSecret(f.leaf)
	case f.own:
		s.failf(f.owner, "option own is for single values, not for a %s", t)
	case f.kind == kindGroup && f.required:
		s.failf(f.owner, "option required is for values and maps, not for a struct")
	}
	return true
}

// defaults sets the default of f, if it can be parsed.
func (s *schemaParser) defaults(f *field, def string) {
	if def == "" {
		return
	}
	f.def, f.hasDef = def, true
	var err error
	switch {
	case f.kind == kindLeaf:
		_, err = decodeText(f.leaf, def)
	case f.kind == kindMap && f.elem.kind == kindLeaf:
		f.elem.def = def
		var n *node
		if n, err = splitPairs(def, ""); err == nil {
			for _, item := range n.fields {
				if _, err = decodeText(f.elem.leaf, item.text); err != nil {
					break
				}
			}
		}
	default:
		err = fmt.Errorf("a %s takes no default", f.typ)
	}
	if err != nil {
		s.failf(f.owner, "default %q: %v", def, err)
		f.hasDef = false
	}
}

// isLeaf reports whether a single text can hold a t.
func isLeaf(t reflect.Type) bool {
	if t == typeURL || t == typeSecret || t == typeDuration || reflect.PointerTo(t).Implements(typeTextUnmarshaler) {
		return true
	}
	switch k := t.Kind(); k {
	case reflect.Pointer:
		return t.Elem().Kind() != reflect.Pointer && t.Elem().Kind() != reflect.Slice && isLeaf(t.Elem())
	case reflect.Slice:
		return isScalar(t.Elem())
	default:
		return k == reflect.String || k >= reflect.Bool && k <= reflect.Float64 && k != reflect.Uintptr
	}
}

// isScalar reports whether t is a leaf but not a list.
func isScalar(t reflect.Type) bool {
	return isLeaf(t) && (t.Kind() != reflect.Slice || reflect.PointerTo(t).Implements(typeTextUnmarshaler))
}

func isSecret(t reflect.Type) bool {
	for t != typeSecret && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	return t == typeSecret
}

// snakeCase turns ExporterOTLPEndpoint into exporter_otlp_endpoint.
func snakeCase(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) {
			plural := i+2 == len(runes) && runes[i+1] == 's' // URLs
			startsWord := i+1 < len(runes) && unicode.IsLower(runes[i+1]) && !plural
			if !unicode.IsUpper(runes[i-1]) || startsWord {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
