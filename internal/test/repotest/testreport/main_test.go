package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const ran = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.5}
`
	for name, tc := range map[string]struct {
		in   string
		ok   bool
		want []string
	}{
		"pass":    {ran, true, []string{"ok       1.5 s  p", "tests: 1 passed, 0 failed, 0 skipped"}},
		"nothing": {"", false, []string{"0 packages"}},
		"skip": {`{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: no broker\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:2: no broker\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
` + ran, true, []string{"skip  2: no broker: p TestB, p TestC\n", "2 skipped"}},
		"fail": {ran + `{"Action":"output","Package":"q","Test":"TestC","Output":"got 1\n"}
{"Action":"fail","Package":"q","Test":"TestC"}
{"Action":"fail","Package":"q"}
`, false, []string{"q TestC\ngot 1\n", "2 packages", "2 failed"}},
		"does not build": {ran + `{"ImportPath":"q","Action":"build-output","Output":"undefined: x\n"}
{"ImportPath":"q","Action":"build-fail"}
`, false, []string{"undefined: x", "1 failed"}},
		"go's own words": {"go: no such tool\n" + ran, true, []string{"go: no such tool\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			ok, err := report(strings.NewReader(tc.in), &out)
			if ok != tc.ok || err != nil {
				t.Errorf("ok %v, %v, want %v", ok, err, tc.ok)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("report has no %q:\n%s", want, out.String())
				}
			}
		})
	}
}
