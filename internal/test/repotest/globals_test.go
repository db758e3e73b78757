package repotest

import (
	"go/ast"
	"go/token"
	"maps"
	"strings"
	"testing"
)

// allowedGlobals are variables of packages that are more than errors, guards, embedded files,
// compiled patterns and tables that nobody writes, by directory and name, each with its reason.
var allowedGlobals = map[string]string{
	"config.sections":              "the settings structs of linked packages, as in database/sql",
	"drivers.registered":           "the schemes of imported driver packages, as in database/sql",
	"internal/deadline.never":      "a channel that nobody closes or sends to",
	"internal/inproc.copyBuffers":  "a sync.Pool: buffers without meaning, given back after each copy",
	"internal/test/servertest.one": "the servers of a test process; testing has one TestMain too",
	"internal/strictjson.tables":   "a cache of what does not change: the fields of struct types",
	"server.opened":                "a count: the descriptors of a process are shared by its servers",
	"shop/internal/rest.replaced":  "a guard: huma takes its type of errors from variables",
	"shop.version":                 "a constant that the linker sets: which version this program is",
	"sqldb.registry":               "the schemes of imported driver packages, as in database/sql",
	"telemetry.dial":               "the OTLP exporters, if they are linked, as in database/sql",
	"telemetry.encoders":           "a sync.Pool: buffers without meaning, given back after each record",
	"telemetry.records":            "a sync.Pool: what sampled spans tell, given back when they are exported",
	"telemetry.spanKey":            "a constant: the key under which OpenTelemetry keeps a context's span",
}

// wallGlobals finds variables of packages that code can change or that live as long as the process.
func wallGlobals(all []source) (offences []string) {
	written := writtenNames(all)
	for _, s := range all {
		if !ours(s) {
			continue
		}
		for _, d := range s.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					key := s.dir() + "." + name.Name
					if _, ok := allowedGlobals[key]; !ok && !harmless(g, spec, i, written[key]) {
						offences = append(offences, s.offence(name, "variable %s of a package; add it to allowedGlobals with a reason, or better do without", key))
					}
				}
			}
		}
	}
	return offences
}

// harmless reports whether the i-th variable of spec is of the kinds that need no reason.
func harmless(g *ast.GenDecl, spec *ast.ValueSpec, i int, written bool) bool {
	if spec.Names[i].Name == "_" || embeds(g.Doc) || embeds(spec.Doc) {
		return true
	}
	if written || i >= len(spec.Values) {
		return false
	}
	switch v := spec.Values[i].(type) {
	case *ast.CallExpr:
		switch lastName(generic(v.Fun)) {
		case "New", "Errorf":
			return strings.HasPrefix(strings.ToLower(spec.Names[i].Name), "err")
		case "MustCompile", "NewReplacer", "TypeFor": // compiled patterns, in a wide sense
			return true
		}
	case *ast.CompositeLit:
		switch typ := v.Type.(type) {
		case *ast.MapType, *ast.ArrayType:
			return true
		case *ast.IndexExpr: // messaging.Topic[T]: a name with a type, declared once for publishers and subscribers
			return lastName(typ.X) == "Topic"
		}
	}
	return false
}

// generic returns F of F[T].
func generic(e ast.Expr) ast.Expr {
	if i, ok := e.(*ast.IndexExpr); ok {
		return i.X
	}
	return e
}

func embeds(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// writtenNames returns, by directory and name, what is assigned to, appended to, deleted from or
// has its address taken. A local variable of the same name counts too; then give one of them a
// better name.
func writtenNames(all []source) map[string]bool {
	written := map[string]bool{}
	for _, s := range all {
		if s.test() {
			continue
		}
		note := func(e ast.Expr) {
			if name := rootName(e); name != "" {
				written[s.dir()+"."+name] = true
			}
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						note(e)
					}
				}
			case *ast.IncDecStmt:
				note(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					note(n.X)
				}
			case *ast.CallExpr:
				switch lastName(n.Fun) {
				case "delete", "clear", "copy":
					note(n.Args[0])
				}
			}
			return true
		})
	}
	return written
}

// rootName returns x of x, x[i], x.f and *x.
func rootName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ""
		}
	}
}

// An entry that nobody needs any more is a hole in the wall.
func TestAllowedGlobalsAreThere(t *testing.T) {
	t.Parallel()
	unused := maps.Clone(allowedGlobals)
	for _, s := range get(t, sources) {
		for _, d := range s.syntax.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, spec := range g.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						delete(unused, s.dir()+"."+name.Name)
					}
				}
			}
		}
	}
	for key, reason := range unused {
		t.Errorf("allowedGlobals has %s (%s), which is not there", key, reason)
	}
}
