package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaptar/kaptar/internal/near"
)

// check reports keys that targets declare with different types, and keys that would have the same
// environment variable.
func (sc *scope) check(p *problems) {
	types := map[string]*field{}
	leaves := map[*schema][][2]string{} // keys and their names in the environment
	for _, s := range sc.schemas {
		checkTypes(s.fields, "", types, p)
		eachLeaf(s.fields, "", func(key string, f *field) {
			if strings.Contains(key, "<") {
				return
			}
			leaves[s] = append(leaves[s], [2]string{key, EnvName(key)})
			if f.secret {
				leaves[s] = append(leaves[s], [2]string{key, EnvName(key) + fileSuffix})
			}
		})
	}
	type setting struct{ service, key string }
	variables := map[string]setting{}
	add := func(service, prefix string, s *schema) {
		for _, leaf := range leaves[s] {
			name, here := prefix+leaf[1], setting{service, leaf[0]}
			first, taken := variables[name]
			if taken && first != here {
				p.add(&Error{Key: ownKey(service, here.key), Problem: fmt.Sprintf(
					"the environment variable %s would set it and %s: rename one", name, ownKey(first.service, first.key))})
				continue
			}
			variables[name] = here
		}
	}
	for _, s := range sc.schemas {
		add("", "", s)
	}
	for _, t := range sc.targets {
		if t.Service != "" {
			add(t.Service, EnvName(t.Service)+"_", t.schema)
		}
	}
}

func checkTypes(fields []*field, key string, types map[string]*field, p *problems) {
	for _, f := range fields {
		at := joinKey(key, f.name)
		first, seen := types[at]
		if !seen {
			types[at] = f
		} else if first.kind != f.kind || first.leaf != f.leaf {
			p.add(&Error{Key: at, Problem: fmt.Sprintf("declared as %s by %s and as %s by %s", first.typ, first.owner, f.typ, f.owner)})
			continue
		}
		checkTypes(f.children, at, types, p)
	}
}

// check reports unknown keys and wrong values in one source, overridden or not.
func (l *layers) check(source candidate) {
	c := checker{layers: l, defaults: source.defaults, sharing: len(l.loaded) > 1}
	names := slices.DeleteFunc(slices.Clone(source.node.names), func(name string) bool { return name == servicesKey })
	c.mapping(source.node, names, l.plain, "")
	c.sharing = false
	all := source.node.child(servicesKey)
	if !all.hasValue() {
		return
	}
	if all.kind != kindMapping {
		l.problems.add(&Error{Key: servicesKey, Origin: all.origin, Problem: "expected services' names and their keys"})
		return
	}
	for _, name := range all.names {
		key := ownKey(name, "")
		if !slices.Contains(l.services, name) {
			if !source.defaults {
				l.problems.add(&Error{Key: key, Origin: all.keyOrigin(name), Problem: "unknown service" + suggestion(name, l.services)})
			}
			continue
		}
		c.group(all.fields[name], l.own[name], key)
	}
}

type checker struct {
	*layers
	sharing  bool // a plain value for a key tagged own is an error
	defaults bool
}

func (c *checker) group(n *node, fields []*field, key string) {
	if !n.hasValue() {
		return
	}
	if n.kind != kindMapping {
		c.problems.add(&Error{Key: key, Origin: n.origin, Problem: "expected a mapping with keys such as " + someNames(fieldNames(fields))})
		return
	}
	c.mapping(n, n.names, fields, key)
}

func (c *checker) mapping(n *node, names []string, fields []*field, key string) {
	for _, name := range names {
		at := joinKey(key, name)
		matches := slices.DeleteFunc(slices.Clone(fields), func(f *field) bool { return f.name != name })
		if len(matches) == 0 {
			if c.defaults && unlinked(at) != "" {
				continue // the caller that supplies defaults need not know what is linked
			}
			c.unknown(at, name, n.keyOrigin(name), fields)
			continue
		}
		c.value(n.fields[name], matches, at)
	}
}

// value checks the node of one key. All fields have the same type, see scope.check.
func (c *checker) value(n *node, fields []*field, key string) {
	var below []*field
	for _, f := range fields {
		below = append(below, f.children...)
	}
	switch kind := fields[0].kind; {
	case kind == kindGroup:
		c.group(n, below, key)
	case !n.hasValue():
	case kind == kindMap:
		c.entries(n, fields, below, key)
	default:
		c.leaf(n, fields, key)
	}
}

func (c *checker) entries(n *node, fields, elems []*field, key string) {
	if n.kind != kindMapping {
		c.problems.add(&Error{Key: key, Origin: n.origin, Problem: "expected a mapping from names to values"})
		return
	}
	for _, name := range n.names {
		if like := near.Typo(name, c.services); fields[0].services && like != "" && n.child(like) == nil && !slices.Contains(c.services, name) {
			c.problems.add(&Error{Key: joinKey(key, name), Origin: n.keyOrigin(name), Problem: fmt.Sprintf("no service has this name, did you mean %q?", like)})
		}
		c.value(n.fields[name], elems, joinKey(key, name))
	}
}

func (c *checker) leaf(n *node, fields []*field, key string) {
	f := fields[0]
	if f.secret {
		c.problems.secret(n.text)
		for _, item := range n.items {
			c.problems.secret(item.text)
		}
	}
	if _, err := decode(f.leaf, n); err != nil {
		c.problems.add(&Error{Key: key, Origin: n.origin, Value: c.show(f, n), Problem: err.Error()})
	}
	if !c.sharing || c.defaults || !slices.ContainsFunc(fields, func(f *field) bool { return f.own }) {
		return
	}
	var keys, variables []string
	for _, t := range c.targets {
		_, f := locate(t.fields, strings.Split(key, "."))
		if f == nil {
			continue
		}
		if t.Service == "" {
			return // the process-wide target takes the plain value
		}
		if own := ownKey(t.Service, key); f.own && !t.SchemaOnly && !slices.Contains(keys, own) {
			keys, variables = append(keys, own), append(variables, EnvName(t.Service+"."+key))
		}
	}
	slices.Sort(keys)
	slices.Sort(variables)
	c.problems.add(&Error{Key: key, Origin: n.origin, Value: c.show(f, n), Problem: fmt.Sprintf(
		"the services of this process cannot share it: set %s instead (environment %s)", strings.Join(keys, ", "), strings.Join(variables, ", "))})
}

// unknown reports an unknown key without its value: if the key is misspelt, that may be a secret.
func (c *checker) unknown(key, name, origin string, fields []*field) {
	problem := "unknown key" + suggestion(name, fieldNames(fields))
	switch pkg := unlinked(key); {
	case pkg != "":
		problem = fmt.Sprintf("belongs to package %s, which this program does not import: add import _ %[1]q, or remove the key", pkg)
	case key == name && slices.Contains(c.services, name):
		problem = fmt.Sprintf("unknown key, did you mean %q?", ownKey(name, ""))
	case strings.Contains(name, "."):
		problem = "unknown key: a dot does not nest in YAML, write each part as a key of its own"
	}
	c.problems.add(&Error{Key: key, Origin: origin, Problem: problem})
}

func fieldNames(fields []*field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Key describes one setting of a target.
type Key struct {
	Service string // of the target
	Name    string // dotted; <name> stands for the name of a map's entry
	Type    string // string, bool, int, number, duration, size, url, secret, "list of …", or a Go type such as slog.Level
	Default string // as in the struct tag; redacted for a secret
	Help    string
	Secret  bool
	Live    bool
}

// Keys returns the keys that targets declare, in the order of their fields, each once per service.
// It is for --help and flags. The error is a *[Errors] about the declarations.
func Keys(targets ...Target) ([]Key, error) {
	sc, err := newScope(targets)
	if err != nil {
		return nil, err
	}
	var out []Key
	seen := map[[2]string]bool{}
	for _, t := range sc.targets {
		eachLeaf(t.fields, "", func(name string, f *field) {
			if id := [2]string{t.Service, name}; !seen[id] {
				seen[id] = true
				def := hidePassword(f.def)
				if f.secret {
					def = Secret(f.def).String()
				}
				out = append(out, Key{t.Service, name, typeName(f.leaf), def, f.help, f.secret, f.live})
			}
		})
	}
	return out, nil
}
