package cache

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"reflect"
)

// shapeOf is a short text that changes with what T's JSON looks like. Decoding alone does not find
// out: a field that is new in T would just be zero when an old value lacks it.
func shapeOf[T any]() string {
	h := fnv.New64a()
	describe(h, reflect.TypeFor[T](), make(map[reflect.Type]bool))
	return fmt.Sprintf("%016x", h.Sum64())[:8]
}

// describe writes the fields and types below t, each type once.
func describe(w io.Writer, t reflect.Type, seen map[reflect.Type]bool) {
	fmt.Fprintf(w, "%s(", t.Kind())
	defer fmt.Fprint(w, ")")
	own := reflect.TypeFor[json.Marshaler]()
	if seen[t] || t.Implements(own) || reflect.PointerTo(t).Implements(own) {
		fmt.Fprint(w, t) // its name stands for what it writes
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Map:
		describe(w, t.Key(), seen)
		describe(w, t.Elem(), seen)
	case reflect.Array:
		fmt.Fprint(w, t.Len())
		describe(w, t.Elem(), seen)
	case reflect.Pointer, reflect.Slice:
		describe(w, t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() || f.Anonymous {
				fmt.Fprintf(w, "%s %q ", f.Name, f.Tag.Get("json"))
				describe(w, f.Type, seen)
			}
		}
	}
}
