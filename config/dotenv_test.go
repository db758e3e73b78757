package config_test

import (
	"testing"

	"github.com/kaptar/kaptar/config"
)

func TestDotEnv(t *testing.T) {
	t.Parallel()
	type settings struct{ A, B string }
	cases := []struct{ name, text, a, b string }{
		{"plain", "A=x\nB=y", "x", "y"},
		{"export, spaces, CRLF", "export A = x y \r\n  B=y\r\n", "x y", "y"},
		{"comments", "# c\nA=x # c\n\n  # c\nB=y#z", "x", "y#z"},
		{"empty is not set", "A=\nB= # c", "", ""},
		{"single quotes", `A='x # \n $y' # c` + "\nB=y", `x # \n $y`, "y"},
		{"double quotes", `A="x\n\t\"\\\$\q"` + "\nB=y", "x\n\t\"\\$\\q", "y"},
		{"over lines", "A=\"x\ny\n\"\nB='y\n'", "x\ny\n", "y\n"},
		{"equals signs", "A=x=y\nB==", "x=y", "="},
		{"comment after a tab", "A=x\t# c\nB=\t# c", "x", ""},
		{"byte order mark", "\ufeffA=x\nB=y", "x", "y"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, _ := load[settings](t, config.Sources{DotEnv: write(t, c.text)})
			if s.A != c.a || s.B != c.b {
				t.Errorf(".env %q: got %q and %q, want %q and %q", c.text, s.A, s.B, c.a, c.b)
			}
		})
	}
}

func TestDotEnvProblems(t *testing.T) {
	t.Parallel()
	src := config.Sources{DotEnv: write(t, "A\n1A=x\nB=\"x\ny\"\nB=z\nC='x' y\nA='x\nA B=c\n")}
	equalProblems(t, problemsOf(t, src, config.Target{Into: &struct{ A, B string }{}}), []string{
		"config.yml:1: expected NAME=value, a comment or an empty line",
		"config.yml:2: expected NAME=value, a comment or an empty line",
		"config.yml:5: B: the variable is set twice, first in line 3",
		"config.yml:6: C: nothing but a comment may follow the closing '",
		"config.yml:7: A: the closing ' is missing",
		"config.yml:8: expected NAME=value, a comment or an empty line",
	})
	_, c := load[struct{ A, B string }](t, config.Sources{DotEnv: write(t, "A='\n\n'\n\nB=x")})
	if got := find(t, c, "", "b").Origin; got[len(got)-2:] != ":5" {
		t.Errorf("origin after a value of several lines: got %s, want line 5", got)
	}
}
