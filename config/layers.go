package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/redact"
)

// layers are all sources of one call of fill, highest first.
type layers struct {
	*scope
	file     string      // for error texts
	list     []candidate // the roots, each a tree in the shape of the YAML file
	problems *problems
	files    map[string]fileText // what variables such as DATABASE_URL_FILE name, each read once
}

// texts turns values by dotted key into a tree. Unknown keys are split at their dots.
func (l *layers) texts(values map[string]string, origin func(key string) string) *node {
	root := newMapping("")
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path, f := l.locate(key)
		value := newScalar(values[key], origin(key))
		if f != nil && f.kind == kindMap && f.elem.kind == kindLeaf {
			if value = l.pairs(f, value, key); value == nil {
				continue
			}
		}
		root.setPath(path, value)
	}
	return root
}

// pairs parses the text n as a value of the map f. It returns nil after it has reported a problem.
func (l *layers) pairs(f *field, n *node, key string) *node {
	pairs, err := splitPairs(n.text, n.origin)
	if err != nil {
		l.problems.add(&Error{Key: key, Origin: n.origin, Value: l.show(f.elem, n), Problem: err.Error()})
	}
	return pairs
}

// locate returns the path in a tree and the field of a dotted key, which may be a service's own. An
// unknown key is split at its dots and has no field.
func (l *layers) locate(key string) (at []string, f *field) {
	var prefix []string
	rest, fields := key, l.plain
	if after, own := strings.CutPrefix(key, servicesKey+"."); own {
		if service, tail, ok := l.cutService(after); ok {
			prefix, rest, fields = []string{servicesKey, service}, tail, l.own[service]
		}
	}
	segments := strings.Split(rest, ".")
	path, f := locate(fields, segments)
	if f == nil {
		path = segments
	}
	return append(prefix, path...), f
}

// locate does the same below fields. The name of a map's entry is one step even if it has dots.
func locate(fields []*field, segments []string) ([]string, *field) {
	for _, f := range fields {
		if f.name != segments[0] {
			continue
		}
		rest := segments[1:]
		switch {
		case len(rest) == 0:
			return segments[:1], f
		case f.kind == kindGroup:
			if path, found := locate(f.children, rest); found != nil {
				return append([]string{f.name}, path...), found
			}
		case f.kind == kindMap && f.elem.kind == kindLeaf:
			return []string{f.name, strings.Join(rest, ".")}, f.elem
		case f.kind == kindMap:
			for i := 1; i < len(rest); i++ {
				if path, found := locate(f.elem.children, rest[i:]); found != nil {
					return append([]string{f.name, strings.Join(rest[:i], ".")}, path...), found
				}
			}
		}
	}
	return nil, nil
}

// show returns the value of a node for an error about f.
func (l *layers) show(f *field, n *node) string {
	if n.kind != kindScalar {
		return ""
	}
	if f.secret {
		return Secret(n.text).String()
	}
	if strings.Contains(n.text, "@") { // perhaps a URL too broken for hidePassword to find the password in it
		return redacted
	}
	return n.text
}

// environment turns variables, with and without a service's name in front, into a tree. They set
// entries of maps that exist in one of the trees named or that have the name of a service.
func (l *layers) environment(vars map[string]variable, named []*node) *node {
	b := &envReader{
		layers: l, vars: vars, names: slices.Sorted(maps.Keys(vars)), used: map[string]bool{}, unknown: map[string]string{},
	}
	trees := slices.Clone(named)
	for _, root := range named {
		if own := root.child(servicesKey); own.hasValue() && own.kind == kindMapping {
			for _, name := range own.names {
				trees = append(trees, own.fields[name])
			}
		}
	}
	root := newMapping("")
	b.read(root, l.plain, "", "", trees)
	for _, service := range l.services {
		if prefix := EnvName(service) + "_"; b.any(prefix) {
			own := newMapping("")
			b.read(own, l.own[service], prefix, ownKey(service, ""), trees)
			root.setPath([]string{servicesKey, service}, own)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.unknown)) {
		if !b.used[name] {
			l.problems.add(&Error{Origin: vars[name].origin, Problem: redact.Visible(name, "") + " " + b.unknown[name]})
		}
	}
	b.typos()
	return root
}

type envReader struct {
	*layers
	vars    map[string]variable
	names   []string // of vars, sorted
	used    map[string]bool
	unknown map[string]string // variables that fit a map of structs, and the problem to report unless an entry uses them
}

// any reports whether the name of some variable begins with prefix.
func (b *envReader) any(prefix string) bool {
	i, _ := slices.BinarySearch(b.names, prefix)
	return i < len(b.names) && strings.HasPrefix(b.names[i], prefix)
}

// read sets in out the values of fields for which there are variables that begin with prefix.
func (b *envReader) read(out *node, fields []*field, prefix, key string, trees []*node) {
	for _, f := range fields {
		name := prefix + EnvName(f.name)
		if !b.any(name) {
			continue
		}
		switch f.kind {
		case kindLeaf:
			if value := b.value(f, name, joinKey(key, f.name)); value != nil {
				out.set(f.name, value)
			}
		case kindGroup:
			group := newMapping("")
			b.read(group, f.children, name+"_", joinKey(key, f.name), children(trees, f.name))
			if len(group.names) > 0 {
				out.setPath([]string{f.name}, group)
			}
		case kindMap:
			b.readMap(out, f, name, joinKey(key, f.name), children(trees, f.name))
		}
	}
}

func (b *envReader) readMap(out *node, f *field, name, key string, trees []*node) {
	if f.elem.kind == kindLeaf {
		if value := b.value(f.elem, name, key); value != nil {
			if value = b.pairs(f, value, key); value != nil {
				out.setPath([]string{f.name}, value)
			}
		}
	}
	entries := slices.Clone(b.services)
	for _, tree := range trees {
		entries = append(entries, tree.names...)
	}
	if (f.dotted || f.dashed) && f.elem.kind == kindGroup {
		entries = append(entries, b.worded(f, name, entries)...)
	}
	slices.Sort(entries)
	for _, entry := range slices.Compact(entries) {
		entryName := name + "_" + EnvName(entry)
		if !b.any(entryName) {
			continue
		}
		if f.elem.kind == kindLeaf {
			if value := b.value(f.elem, entryName, joinKey(key, entry)); value != nil {
				out.setPath([]string{f.name, entry}, value)
			}
			continue
		}
		group := newMapping("")
		b.read(group, f.elem.children, entryName+"_", joinKey(key, entry), children(trees, entry))
		if len(group.names) > 0 {
			out.setPath([]string{f.name, entry}, group)
		}
	}
	if f.elem.kind == kindGroup {
		b.findUnknown(f, name, key)
	}
}

// typos reports unknown variables that begin with the name of a service or of a group of settings
// and are nearly the name of a setting. Other unknown variables belong to other programs.
func (b *envReader) typos() {
	names := map[string][]string{} // of settings, by what stands in front
	leaves := func(prefix string, fields []*field) {
		eachLeaf(fields, "", func(key string, _ *field) {
			if !strings.Contains(key, "<") {
				names[prefix] = append(names[prefix], prefix+EnvName(key))
			}
		})
	}
	add := func(prefix string, fields []*field) {
		for _, f := range fields {
			if f.kind == kindGroup {
				leaves(prefix+EnvName(f.name)+"_", f.children)
			}
		}
		if prefix != "" {
			leaves(prefix, fields)
		}
	}
	add("", b.plain)
	for _, service := range b.services {
		if prefix := EnvName(service) + "_"; b.any(prefix) {
			add(prefix, b.own[service])
		}
	}
	for _, name := range b.names {
		for i := range name {
			prefix := name[:i+1]
			if known := names[prefix]; known != nil && !b.used[name] && !slices.Contains(known, name) {
				tails := make([]string, len(known))
				for j := range known {
					tails[j] = known[j][i+1:]
				}
				if like := near.Typo(name[i+1:], tails); like != "" {
					b.problems.add(&Error{Origin: b.vars[name].origin, Problem: fmt.Sprintf("unknown variable %s, did you mean %q?", redact.Visible(name, ""), prefix+like)})
					break
				}
			}
		}
	}
}

// worded returns the names of entries that only variables name. The words of the variable are
// joined with dots or dashes: TOPICS_EMAIL_SEND_V1_URL is for the topic email.send.v1.
func (b *envReader) worded(f *field, name string, known []string) (names []string) {
	between := "."
	if f.dashed {
		between = "-"
	}
	eachLeaf(f.elem.children, "", func(key string, leaf *field) {
		for _, variable := range b.names {
			middle, ok := strings.CutPrefix(variable, name+"_")
			if leaf.secret {
				middle = strings.TrimSuffix(middle, fileSuffix)
			}
			middle, fits := strings.CutSuffix(middle, "_"+EnvName(key))
			if ok && fits && !slices.Contains(strings.Split(middle, "_"), "") && !slices.ContainsFunc(known, func(k string) bool { return EnvName(k) == middle }) {
				names = append(names, strings.ToLower(strings.ReplaceAll(middle, "_", between)))
			}
		}
	})
	return names
}

// findUnknown records the variables that would fit a field of an entry of the map f. If f has the
// option dashed it also records all other variables that begin with its name.
func (b *envReader) findUnknown(f *field, name, key string) {
	var suffixes []string
	eachLeaf(f.elem.children, "", func(key string, leaf *field) {
		suffixes = append(suffixes, "_"+EnvName(key))
		if leaf.secret {
			suffixes = append(suffixes, "_"+EnvName(key)+fileSuffix)
		}
	})
	for variable := range b.vars {
		middle, ok := strings.CutPrefix(variable, name+"_")
		switch {
		case ok && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(middle, s) && len(middle) > len(s) }):
			b.unknown[variable] = fmt.Sprintf("fits %s.<name>, but no entry or service has such a name: name the entry in the settings file", key)
		case ok && f.dashed:
			b.unknown[variable] = fmt.Sprintf("is no part of %s: expected %s_<NAME> and then one of %s", key, name, strings.Join(suffixes, ", "))
		}
	}
}

// eachLeaf calls visit for each leaf below fields; "<name>" stands for the name of a map's entry.
func eachLeaf(fields []*field, key string, visit func(key string, leaf *field)) {
	for _, f := range fields {
		at := joinKey(key, f.name)
		if f.kind == kindLeaf {
			visit(at, f)
		}
		eachLeaf(f.children, at, visit)
	}
}

func children(nodes []*node, name string) (out []*node) {
	for _, n := range nodes {
		if c := n.child(name); c != nil {
			out = append(out, c)
		}
	}
	return out
}
