package repotest

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	reliability = "docs/reliability.md"
	// suiteCases is where the names of a driver's TestConformance are.
	suiteCases = "messaging/drivertest"
	scenarios  = 25
)

var (
	namedTest = regexp.MustCompile("`\\./([a-z0-9/]*) ((?:Test|Fuzz|Example)[A-Za-z0-9_]*)(?:/([^`]+))?`")
	anyTest   = regexp.MustCompile("`[^`]*\\b(?:Test|Fuzz)[A-Z][^`]*`")
	scenario  = regexp.MustCompile(`(?m)^\| (\d+) \|.*\|(.*)\|$`)
)

// wallReliability finds tests that docs/reliability.md names and that there are not, and fault scenarios
// about which it says nothing.
func wallReliability(doc string, all []source) (offences []string) {
	tests, texts := map[string]bool{}, map[string]bool{}
	for _, s := range all {
		if !s.test() && s.dir() != suiteCases {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				tests[path.Join(s.dir(), n.Name.Name)] = n.Recv == nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil {
					texts[path.Join(s.dir(), text)] = true
				}
			}
			return true
		})
	}
	for _, m := range namedTest.FindAllStringSubmatch(doc, -1) {
		if dir, name, sub := m[1], m[2], m[3]; !tests[path.Join(dir, name)] ||
			sub != "" && !texts[path.Join(dir, sub)] && !texts[path.Join(suiteCases, sub)] {
			offences = append(offences, fmt.Sprintf("%s: there is no %s", reliability, m[0]))
		}
	}
	for _, text := range anyTest.FindAllString(doc, -1) {
		if !namedTest.MatchString(text) {
			offences = append(offences, fmt.Sprintf("%s: %s: write a test as `./folder TestName`", reliability, text))
		}
	}
	told := map[string]bool{}
	for _, m := range scenario.FindAllStringSubmatch(doc, -1) {
		told[m[1]] = strings.TrimSpace(m[2]) != ""
	}
	for n := range scenarios {
		if !told[strconv.Itoa(n+1)] {
			offences = append(offences, fmt.Sprintf("%s: nothing is said of fault scenario %d", reliability, n+1))
		}
	}
	return offences
}

// TestReliability: what docs/reliability.md says is shown by a test is shown by a test that there is.
func TestReliability(t *testing.T) {
	t.Parallel()
	sources := get(t, sources)
	for _, f := range get(t, files) {
		if f.path != reliability {
			continue
		}
		for _, offence := range wallReliability(f.text, sources) {
			t.Error(offence)
		}
		for name, broken := range map[string]string{
			"a test that there is not": f.text + "`./messaging/outbox TestNothing`",
			"a case that there is not": f.text + "`./drivers/nats TestConformance/Nothing`",
			"another folder":           f.text + "`./messaging TestRelayLateCommit`",
			"no folder":                f.text + "`TestRelayLateCommit`",
			"an empty row":             f.text + "\n| 13 | a fault | C1 | |\n",
			"a row less":               strings.Replace(f.text, "\n| 13 |", "\n| no |", 1),
		} {
			if len(wallReliability(broken, sources)) == 0 {
				t.Errorf("%s: not noticed", name)
			}
		}
		return
	}
	t.Errorf("there is no %s", reliability)
}
