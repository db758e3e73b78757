package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile  = 1 << 20 // bytes of a settings file
	maxDepth = 200     // of a YAML file; the parser's time grows with the square of the depth
)

// readFile reads a settings file as UTF-8. It returns nil after it has reported a problem.
func readFile(path string, p *problems) []byte {
	var data []byte
	problem := &Error{Origin: path}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() && info.Size() <= maxFile {
		data, err = readLimited(path, maxFile)
	}
	large := len(data) > maxFile // of a device or a pipe, which tells no size
	switch data = toUTF8(data); {
	case errors.Is(err, os.ErrNotExist):
		problem.Problem = "the file does not exist"
	case err != nil:
		problem.Problem, problem.cause = err.Error(), err
	case info.IsDir():
		problem.Problem = "expected a file, found a directory"
	case info.Size() > maxFile || large:
		problem.Problem = fmt.Sprintf("the file has more than %d bytes", maxFile)
	case !utf8.Valid(data):
		line := 0
		for text := range bytes.Lines(data) {
			if line++; !utf8.Valid(text) {
				break
			}
		}
		problem.Origin = fmt.Sprintf("%s:%d", path, line)
		problem.Problem = "not UTF-8 text (Latin-1 or Windows-1252?): save the file as UTF-8"
	default:
		return data
	}
	p.add(problem)
	return nil
}

// readLimited reads a file. Of one that is larger than limit it reads limit+1 bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	_ = f.Close()
	return data, err
}

// toUTF8 turns a file with a byte order mark, as Windows editors write it, into UTF-8 without one.
func toUTF8(data []byte) []byte {
	if rest, marked := bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); marked {
		return rest
	}
	for mark, order := range map[string]binary.ByteOrder{"\xff\xfe": binary.LittleEndian, "\xfe\xff": binary.BigEndian} {
		if rest, marked := bytes.CutPrefix(data, []byte(mark)); marked && len(rest)%2 == 0 {
			units := make([]uint16, len(rest)/2)
			for i := range units {
				units[i] = order.Uint16(rest[2*i:])
			}
			return []byte(string(utf16.Decode(units)))
		}
	}
	return data
}

// parseYAML returns the file as a tree, which is empty for an empty file and after a problem.
func parseYAML(data []byte, path string, p *problems) *node {
	y := &yamlReader{path: path, problems: p, anchors: map[string]*node{}}
	var root *node
	for _, doc := range y.parse(data) {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if root != nil {
			y.fail(doc.Body, "", "a second document starts here, expected one")
			break
		}
		root = y.node(doc.Body, "")
		if root.kind != kindMapping && root.kind != kindNull {
			y.fail(doc.Body, "", "expected keys and values, such as debug: true")
			break
		}
	}
	if root == nil || root.kind != kindMapping {
		return newMapping(path)
	}
	return root
}

type yamlReader struct {
	path     string
	problems *problems
	anchors  map[string]*node
}

// parse returns the documents of the file. It returns nil after it has reported a problem, without
// the parser's quotation of the file, which may have secrets.
func (y *yamlReader) parse(data []byte) (docs []*ast.DocumentNode) {
	defer func() {
		if recover() != nil {
			y.problems.add(&Error{Origin: y.path, Problem: "cannot be parsed as YAML"})
			docs = nil
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if line := tooDeep(tokens); line > 0 {
		y.problems.add(&Error{Origin: y.origin(line), Problem: fmt.Sprintf("nested more than %d levels deep", maxDepth)})
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file.Docs
	}
	problem := &Error{Origin: y.path, Problem: "invalid YAML"}
	var located interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &located) {
		problem.Problem += ": " + located.GetMessage()
		if t := located.GetToken(); t != nil && t.Position != nil {
			problem.Origin = y.origin(t.Position.Line)
		}
	}
	y.problems.add(problem)
	return nil
}

// tooDeep returns the line where brackets or one-line sequences nest too deep, or 0. Indentation
// needs no check: its depth is at most about the square root of the file's size.
func tooDeep(tokens token.Tokens) int {
	brackets, marks, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, marks = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			brackets++
		case token.MappingEndType, token.SequenceEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			marks++
		}
		if brackets > maxDepth || marks > maxDepth {
			return line
		}
	}
	return 0
}

func (y *yamlReader) origin(line int) string { return fmt.Sprintf("%s:%d", y.path, line) }

func (y *yamlReader) line(n ast.Node) string {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return y.path
	}
	return y.origin(n.GetToken().Position.Line)
}

func (y *yamlReader) fail(n ast.Node, key, problem string) {
	y.problems.add(&Error{Key: key, Origin: y.line(n), Problem: problem})
}

// node converts an AST node; key is its dotted path, for errors.
func (y *yamlReader) node(n ast.Node, key string) *node {
	switch n := n.(type) {
	case nil:
		return &node{origin: y.path}
	case *ast.NullNode:
		return &node{origin: y.line(n)}
	case *ast.MappingNode:
		return y.mapping(n, n.Values, key)
	case *ast.MappingValueNode:
		return y.mapping(n.Key, []*ast.MappingValueNode{n}, key)
	case *ast.SequenceNode:
		out := &node{kind: kindList, origin: y.line(n)}
		for i, item := range n.Values {
			out.items = append(out.items, y.node(item, fmt.Sprintf("%s.%d", key, i+1)))
		}
		return out
	case *ast.AnchorNode:
		value := y.node(n.Value, key)
		y.anchors[scalarText(n.Name)] = value // only now: an alias to itself is unknown
		return value
	case *ast.AliasNode:
		name := scalarText(n.Value)
		value, ok := y.anchors[name]
		if !ok {
			y.fail(n, key, fmt.Sprintf("no anchor &%s stands before the alias *%s", name, name))
			return &node{origin: y.line(n)}
		}
		return value
	case *ast.TagNode:
		return y.node(n.Value, key)
	case ast.ScalarNode:
		return newScalar(scalarText(n), y.line(n))
	}
	y.fail(n, key, "expected a value")
	return &node{origin: y.line(n)}
}

func (y *yamlReader) mapping(at ast.Node, values []*ast.MappingValueNode, key string) *node {
	out := newMapping(y.line(at))
	out.at = map[string]string{}
	var merged []*node
	for _, value := range values {
		name := y.keyText(value.Key, key)
		full := joinKey(key, name)
		if value.Key.IsMergeKey() {
			merged = append(merged, y.merged(value.Value, key)...)
			continue
		}
		child := y.node(value.Value, full)
		if first, twice := out.at[name]; twice {
			y.fail(value.Key, full, "the key is given twice, first at "+first)
			continue
		}
		out.at[name] = y.line(value.Key)
		if child.kind == kindNull {
			child = &node{origin: out.at[name]}
		}
		out.set(name, child)
	}
	for _, from := range merged { // the mapping's own keys win, then those of the first merged one
		for _, name := range from.names {
			if out.child(name) == nil {
				out.set(name, from.fields[name])
				out.at[name] = from.keyOrigin(name)
			}
		}
	}
	return out
}

// keyText returns the text of a mapping's key, which may have an anchor or a tag, or be an alias.
func (y *yamlReader) keyText(n ast.Node, key string) string {
	inner := n
	if explicit, ok := n.(*ast.MappingKeyNode); ok {
		inner = explicit.Value
	}
	switch inner.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return y.node(inner, key).text
	}
	return scalarText(n)
}

// merged returns the mappings behind a << key.
func (y *yamlReader) merged(n ast.Node, key string) []*node {
	value := y.node(n, key)
	list := []*node{value}
	if value.kind == kindList {
		list = value.items
	}
	for _, from := range list {
		if from.kind != kindMapping {
			y.fail(n, key, "expected a mapping, or a list of mappings, after <<")
			return nil
		}
	}
	return list
}

// scalarText returns a scalar as it is written: 1.10 stays 1.10.
func scalarText(n ast.Node) string {
	switch n := n.(type) {
	case nil:
		return ""
	case *ast.MappingKeyNode:
		return scalarText(n.Value)
	case *ast.LiteralNode:
		if n.Value != nil {
			return n.Value.Value
		}
		return ""
	case *ast.StringNode:
		return n.Value
	}
	if t := n.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

func joinKey(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
