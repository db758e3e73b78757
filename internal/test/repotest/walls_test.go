package repotest

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	maxExported      = 40
	maxFileLines     = 400
	maxFunctionLines = 60
	maxLines         = 79_500 // of the repository
)

// ours reports whether the walls for code that people read and write apply.
func ours(s source) bool { return !s.test() && !s.generated() }

// public reports whether other modules can import the package of s. The reference application is
// not for that.
func public(s source) bool {
	return ours(s) && s.syntax.Name.Name != "main" && !strings.HasPrefix(s.path, "shop/") &&
		!strings.Contains("/"+s.path, "/internal/") && !strings.HasPrefix(s.path, "tools/")
}

// wallPackageComment finds packages that do not say what they are for.
func wallPackageComment(all []source) (offences []string) {
	documented, first := map[string]bool{}, map[string]source{}
	for _, s := range all {
		if s.test() || s.generated() {
			continue
		}
		if _, ok := first[s.dir()]; !ok {
			first[s.dir()] = s
		}
		documented[s.dir()] = documented[s.dir()] || s.syntax.Doc != nil
	}
	for dir, s := range first {
		if !documented[dir] {
			offences = append(offences, s.offence(s.syntax, "package %s has no package comment", s.syntax.Name.Name))
		}
	}
	return offences
}

// wallExample finds public packages without an example that is run. Those named …test need a
// *testing.T, which an example does not have.
func wallExample(all []source) (offences []string) {
	shown, first := map[string]bool{}, map[string]source{}
	for _, s := range all {
		if public(s) && !strings.HasSuffix(s.syntax.Name.Name, "test") {
			first[s.dir()] = s
		}
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test() && strings.HasPrefix(f.Name.Name, "Example") {
				shown[s.dir()] = true
			}
		}
	}
	for dir, s := range first {
		if !shown[dir] {
			offences = append(offences, s.offence(s.syntax, "public package %s has no Example", s.syntax.Name.Name))
		}
	}
	return offences
}

// exported calls f for each name that a package gives to others; documented says whether it has a
// comment.
func exported(s source, f func(name *ast.Ident, method, documented bool)) {
	for _, d := range s.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
				f(d.Name, d.Recv != nil, d.Doc != nil)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						f(spec.Name, false, d.Doc != nil || spec.Doc != nil)
					}
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						if n.IsExported() {
							f(n, false, d.Doc != nil || spec.Doc != nil || spec.Comment != nil)
						}
					}
				}
			}
		}
	}
}

// receiver returns the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return name == ""
	})
	return name
}

// standard are the methods of interfaces of the standard library, whose contract is written there.
var standard = []string{
	"Error", "Unwrap", "Is", "String", "GoString", "Format", "LogValue", "MarshalText", "UnmarshalText", "MarshalJSON",
	"UnmarshalJSON", "Len", "Less", "Swap",
}

// wallDocumented finds exported names without a comment.
func wallDocumented(all []source) (offences []string) {
	for _, s := range all {
		if !ours(s) || s.syntax.Name.Name == "main" {
			continue
		}
		exported(s, func(name *ast.Ident, method, documented bool) {
			if !documented && (!method || !slices.Contains(standard, name.Name)) {
				offences = append(offences, s.offence(name, "exported %s has no comment", name.Name))
			}
		})
	}
	return offences
}

// wallExported finds packages with more exported names than a reader can keep in mind.
func wallExported(all []source) (offences []string) {
	count := map[string]int{}
	for _, s := range all {
		if ours(s) {
			exported(s, func(_ *ast.Ident, method, _ bool) {
				if !method {
					count[s.dir()]++
				}
				if !method && count[s.dir()] == maxExported+1 {
					offences = append(offences, s.offence(s.syntax, "more than %d exported names", maxExported))
				}
			})
		}
	}
	return offences
}

// wallSize finds files and functions that are too long.
func wallSize(all []source) (offences []string) {
	for _, s := range all {
		if !ours(s) {
			continue
		}
		if n := strings.Count(s.text, "\n"); n > maxFileLines {
			offences = append(offences, s.offence(s.syntax, "file of %d lines, at most %d", n, maxFileLines))
		}
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.lines(f) > maxFunctionLines {
				offences = append(offences, s.offence(f, "function %s of %d lines, at most %d", f.Name.Name, s.lines(f), maxFunctionLines))
			}
		}
	}
	return offences
}

// wallTotal finds that the repository has grown beyond what people can read.
func wallTotal(all []source) (offences []string) {
	n := 0
	for _, s := range all {
		if ours(s) {
			n += strings.Count(s.text, "\n")
		}
	}
	if n > maxLines {
		offences = append(offences, fmt.Sprintf("the repository has %d lines of Go that are neither tests nor generated, at most %d", n, maxLines))
	}
	return offences
}

// banned are words that stand for something that the field has another word for.
var banned = []string{
	"bury", "settle", "verdict", "judge", "hurry", "trouble", "patience", "leash", "joint", "desk", "till", "crowd", "fly", "box", "place", "claim", "node",
}

// words finds those of a name, e.g. In and Place in InPlace.
var words = regexp.MustCompile(`[A-Z]?[a-z]+`)

// wallWords finds exported names with banned words.
func wallWords(all []source) (offences []string) {
	for _, s := range all {
		if !ours(s) {
			continue
		}
		exported(s, func(name *ast.Ident, _, _ bool) {
			for _, word := range words.FindAllString(name.Name, -1) {
				if slices.Contains(banned, strings.ToLower(word)) {
					offences = append(offences, s.offence(name, "%s: %s is not a word of ours, see the vocabulary in AGENTS.md", name.Name, word))
				}
			}
		})
	}
	return offences
}

// wallInit finds init functions that do more than register a driver or a section of settings.
func wallInit(all []source) (offences []string) {
	for _, s := range all {
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !ours(s) || f.Name.Name != "init" || f.Recv != nil {
				continue
			}
			for _, stmt := range f.Body.List {
				if !registers(stmt) {
					offences = append(offences, s.offence(stmt, "init may only register"))
				}
			}
		}
	}
	return offences
}

func registers(stmt ast.Stmt) bool {
	e, ok := stmt.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := e.X.(*ast.CallExpr)
	return ok && strings.HasPrefix(lastName(call.Fun), "Register")
}

// lastName returns F of F and of p.F.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr: // F[T]
		return lastName(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// wallSkip finds tests that are skipped without a reason.
func wallSkip(all []source) (offences []string) {
	for _, s := range all {
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if ok && (sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && len(call.Args) == 0 && isTB(sel.X)) {
				offences = append(offences, s.offence(call, "skipped without a reason"))
			}
			return true
		})
	}
	return offences
}

// isTB reports whether e has the name that a test, benchmark or fuzz target gives to what it is
// handed.
func isTB(e ast.Expr) bool { return slices.Contains([]string{"t", "b", "f", "tb"}, lastName(e)) }

// wallSleep finds tests that wait for real time. A function may sleep when it, its comment or a
// helper in its package that it calls mentions synctest.
func wallSleep(all []source) (offences []string) {
	bubbles := map[string]bool{} // functions that mention synctest, by directory and name
	for _, s := range all {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test() && s.bubble(f) {
				bubbles[s.dir()+"."+f.Name.Name] = true
			}
		}
	}
	for _, s := range all {
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !s.test() || ok && (s.bubble(f) || calls(f, func(name string) bool { return bubbles[s.dir()+"."+name] })) {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if ok && sel.Sel.Name == "Sleep" && lastName(sel.X) == "time" {
					offences = append(offences, s.offence(sel, "time.Sleep outside a synctest bubble"))
				}
				return true
			})
		}
	}
	return offences
}

func (s source) bubble(f *ast.FuncDecl) bool {
	return strings.Contains(s.textOf(f)+f.Doc.Text(), "synctest")
}

// calls reports whether f calls a function of its own package whose name is fit.
func calls(f *ast.FuncDecl, fit func(name string) bool) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			id, ok := call.Fun.(*ast.Ident)
			found = found || ok && fit(id.Name)
		}
		return !found
	})
	return found
}

func (s source) textOf(n ast.Node) string {
	return s.text[s.fset.Position(n.Pos()).Offset:s.fset.Position(n.End()).Offset]
}

func TestWalls(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wall func([]source) []string
		path string // of the offender
		bad  string
	}{
		"package comment":      {wallPackageComment, "p/p.go", "package p"},
		"example":              {wallExample, "p/p.go", "package p"},
		"documented function":  {wallDocumented, "p/p.go", "package p\nfunc F() {}"},
		"documented method":    {wallDocumented, "p/p.go", "package p\n// T is one.\ntype T[K any] struct{}\nfunc (t *T[K]) F() {}"},
		"documented type":      {wallDocumented, "p/p.go", "package p\ntype T int"},
		"documented constant":  {wallDocumented, "p/p.go", "package p\nconst C = 1"},
		"exported names":       {wallExported, "p/p.go", "package p" + strings.Repeat("\nconst C = 1", maxExported+1)},
		"file":                 {wallSize, "p/p.go", "package p" + strings.Repeat("\n", maxFileLines+1)},
		"function":             {wallSize, "p/p.go", "package p\nfunc f() {" + strings.Repeat("\n", maxFunctionLines) + "}"},
		"total":                {wallTotal, "p/p.go", "package p" + strings.Repeat("\n", maxLines+1)},
		"word":                 {wallWords, "p/p.go", "package p\nfunc InTrouble() {}"},
		"word of a method":     {wallWords, "p/p.go", "package p\ntype T int\nfunc (T) Settle() {}"},
		"init":                 {wallInit, "p/p.go", "package p\nfunc init() { x = 1 }"},
		"skip":                 {wallSkip, "p/p_test.go", "package p\nfunc f() { t.Skip() }"},
		"skip now":             {wallSkip, "p/p_test.go", "package p\nfunc f() { t.SkipNow() }"},
		"sleep":                {wallSleep, "p/p_test.go", "package p\nfunc f() { time.Sleep(1) }"},
		"global":               {wallGlobals, "p/p.go", "package p\nvar x int"},
		"global, written":      {wallGlobals, "p/p.go", "package p\nvar m = map[int]int{}\nfunc f() { m[1] = 2 }"},
		"global, written away": {wallGlobals, "p/p.go", "package p\nvar m = []int{1}\nfunc f() { g(&m) }"},
		"global, deleted from": {wallGlobals, "p/p.go", "package p\nvar m = map[int]int{}\nfunc f() { delete(m, 1) }"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, tc.wall(get(t, sources)))
			bad, err := parse([]file{{tc.path, tc.bad}})
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.wall(bad); len(got) != 1 {
				t.Errorf("the wall let this through: %q, want one offence\n%s", got, tc.bad)
			}
		})
	}
}

// Every wall lets what is right through: this is a file that has some of everything.
func TestWallsLetGoodCodeThrough(t *testing.T) {
	t.Parallel()
	good, err := parse([]file{{"p/p.go", `// Package p is good.
package p

var ErrGone = errors.New("p: gone") // ErrGone is documented.

var (
	_     I = (*T)(nil)
	words = map[string]int{"a": 1}
	form  = regexp.MustCompile("a+")
)

//go:embed x.sql
var files embed.FS

func init() { driver.Register("p", open) }

// T is one.
type T struct{}

// InboxPlaceholder has no banned word, only parts of some.
func InboxPlaceholder() {}

func (T) String() string { return "" }
`}, {"p/p_test.go", `package p

func ExampleT() {}

func TestT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { time.Sleep(1) })
	t.Skip("no server")
}
`}})
	if err != nil {
		t.Fatal(err)
	}
	for _, wall := range []func([]source) []string{
		wallPackageComment, wallExample, wallDocumented, wallExported, wallSize, wallTotal, wallWords, wallInit, wallSkip, wallSleep, wallGlobals,
	} {
		report(t, wall(good))
	}
}
