package config

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// node is a value in a source. Every source becomes a tree in the shape of the YAML file. A node
// may appear in a tree more than once (YAML aliases), and does not change after its source is read.
type node struct {
	kind   nodeKind
	text   string            // kindScalar
	items  []*node           // kindList
	names  []string          // kindMapping: the keys in their order
	fields map[string]*node  // kindMapping
	at     map[string]string // kindMapping from YAML: where each key stands
	origin string
}

type nodeKind int

const (
	kindNull nodeKind = iota
	kindScalar
	kindList
	kindMapping
)

func newMapping(origin string) *node {
	return &node{kind: kindMapping, fields: map[string]*node{}, origin: origin}
}

func newScalar(text, origin string) *node {
	return &node{kind: kindScalar, text: text, origin: origin}
}

// child returns the value under name, or nil when there is none or n is not a mapping.
func (n *node) child(name string) *node {
	if n == nil || n.kind != kindMapping {
		return nil
	}
	return n.fields[name]
}

// keyOrigin returns where the key name of the mapping n was found.
func (n *node) keyOrigin(name string) string {
	if at, ok := n.at[name]; ok {
		return at
	}
	return n.fields[name].origin
}

func (n *node) set(name string, value *node) {
	if _, there := n.fields[name]; !there {
		n.names = append(n.names, name)
	}
	n.fields[name] = value
}

// merge returns the union of a and b. Where both have a value, and not both a mapping, a wins.
func merge(a, b *node) *node {
	if a == nil || b == nil || a.kind != kindMapping || b.kind != kindMapping {
		return cmp.Or(a, b)
	}
	out := newMapping(a.origin)
	for _, name := range slices.Concat(a.names, b.names) {
		out.set(name, merge(a.fields[name], b.fields[name]))
	}
	return out
}

// setPath puts value at path, merged with what is there.
func (n *node) setPath(path []string, value *node) {
	for _, name := range path[:len(path)-1] {
		next := n.child(name)
		if next == nil || next.kind != kindMapping {
			next = newMapping(value.origin)
			n.set(name, next)
		}
		n = next
	}
	last := path[len(path)-1]
	n.set(last, merge(value, n.child(last)))
}

// hasValue reports whether n has a value. A YAML key without a value has none.
func (n *node) hasValue() bool { return n != nil && n.kind != kindNull }

func splitPairs(text, origin string) (*node, error) {
	out := newMapping(origin)
	if strings.TrimSpace(text) == "" {
		return out, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, errors.New("expected name=value pairs such as a=1,b=2")
		}
		if out.child(name) != nil {
			return nil, errors.New("a name is given twice, expected name=value pairs such as a=1,b=2")
		}
		out.set(name, newScalar(strings.TrimSpace(value), origin))
	}
	return out, nil
}
