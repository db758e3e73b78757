package config_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/config"
)

// hostileSettings have a field of each kind.
type hostileSettings struct {
	Listen   string        `config:"listen"`
	Timeout  time.Duration `config:"timeout"`
	MaxBody  config.Size   `config:"max_body"`
	Count    int           `config:"count"`
	Small    uint8         `config:"small"`
	Ratio    float64       `config:"ratio"`
	Debug    bool          `config:"debug"`
	Bank     url.URL       `config:"bank"`
	Database config.Secret `config:"database_url"`
	Keys     []config.Secret
	Headers  map[string]config.Secret
	Clients  map[string]struct {
		Timeout time.Duration `config:"timeout"`
	}
	Group struct{ A, B string }
}

// laughs is YAML in which each anchor is nine times the one before.
func laughs(open, end string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "a0: &a0 %sx%s\n", open, end)
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String() + "keys: *a39\n"
}

// hostile are sources that somebody made to break the program, and the end of the one error, or the first of several, that each gets.
func hostile(dir string) map[string]struct {
	src  config.Sources
	want string
} {
	type c = struct {
		src  config.Sources
		want string
	}
	n := 0
	file := func(text string) config.Sources {
		n++
		path := filepath.Join(dir, fmt.Sprintf("%d.yml", n))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			panic(err)
		}
		return config.Sources{File: path}
	}
	env := func(vars ...string) config.Sources { return config.Sources{Env: vars} }
	flag := func(key, value string) config.Sources {
		return config.Sources{Flags: map[string]string{key: value}}
	}
	long := strings.Repeat("x", 1<<20)
	merges := "m0: &m0 {a: x}\n"
	for i := 1; i < 60; i++ {
		merges += fmt.Sprintf("m%d: &m%d {<<: [*m%d, *m%[3]d, *m%[3]d]}\n", i, i, i-1)
	}
	return map[string]c{
		"billion laughs":            {file(laughs("[", "]")), `a0: unknown key, expected bank, clients`},
		"billion laughs, for a key": {file("keys: &b [&a [x,x,x],*a,*a]\n"), `keys: item 1: expected a secret`},
		"merges of merges":          {file(merges + "group: *m59\n"), `m0: unknown key`},
		"brackets":                  {file("keys: " + strings.Repeat("[", 100_000)), `nested more than 200 levels deep`},
		"braces":                    {file("keys: " + strings.Repeat("{a: ", 100_000)), `nested more than 200 levels deep`},
		"dashes on one line":        {file("keys: \n" + strings.Repeat("- ", 10_000) + "x"), `nested more than 200 levels deep`},
		"question marks":            {file(strings.Repeat("? ", 10_000) + "x"), `nested more than 200 levels deep`},
		"deep indentation":          {file(indented(1000)), `a: unknown key`},
		"a large document":          {file("listen: " + long), `the file has more than 1048576 bytes`},
		"many keys":                 {file(manyKeys(5_000)), `k0: unknown key`},
		"NUL":                       {file("listen: \"a\x00b\"\ncount: x\x00"), `count = "x\x00": expected a whole number`},
		"not UTF-8":                 {file("count: 1\nlisten: \xff\xfe"), `2: not UTF-8 text (Latin-1 or Windows-1252?): save the file as UTF-8`},
		"UTF-16 of a bad length":    {file("\xff\xfea"), `1: not UTF-8 text (Latin-1 or Windows-1252?): save the file as UTF-8`},
		"a key twice":               {file("count: 1\ncount: 2"), `count: the key is given twice, first at`},
		"a key twice, quoted":       {file("count: 1\n\"count\": 2"), `count: the key is given twice, first at`},
		"a merge of itself":         {file("group: &g\n  <<: *g\n"), `group: no anchor &g stands before the alias *g`},
		"a list of itself":          {file("keys: &k [*k]"), `keys: item 1: expected a secret`},
		"a merge of a text":         {file("group: {<<: x}"), `group: expected a mapping, or a list of mappings, after <<`},
		"no such anchor":            {file("listen: *nobody"), `listen: no anchor &nobody stands before the alias *nobody`},
		"!!binary":                  {file("count: !!binary aGVsbG8="), `count = "aGVsbG8=": expected a whole number`},
		"!!python/object":           {file("group: !!python/object/apply:os.system [id]"), `group: expected a mapping with keys such as a, b`},
		"two documents":             {file("count: 1\n---\ncount: 2"), `a second document starts here, expected one`},
		"a key that is a mapping":   {file("? {a: b}\n: c"), `2: invalid YAML: found an invalid key for this map`},
		"a key with control codes":  {file("\"a\\x1b[1A\\nconfig: fine\": 1"), `a\x1b[1A\nconfig: fine: unknown key`},
		"a number out of range":     {file("count: 99999999999999999999"), `expected a whole number from -9223372036854775808 to 9223372036854775807`},
		"a long number":             {env("COUNT=" + strings.Repeat("9", 1<<20)), `expected a whole number from -9223372036854775808 to 9223372036854775807`},
		"a small number":            {flag("small", "256"), `flag --small: small = "256": expected a whole number from 0 to 255`},
		"a negative one":            {flag("small", "-1"), `flag --small: small = "-1": expected a whole number`},
		"infinity":                  {flag("ratio", "1e999"), `flag --ratio: ratio = "1e999": expected a number`},
		"a duration out of range":   {flag("timeout", "9999999999h"), `expected a duration such as 300ms, 5s, 2m or 1h30m (units ns, us, ms, s, m, h)`},
		"a duration without a unit": {flag("timeout", "5"), `add a unit, such as 5s`},
		"a negative size":           {flag("max_body", "-1"), `expected a size such as 512, 64KiB or 1MB (units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)`},
		"a size out of range":       {flag("max_body", "99999999999TiB"), `expected a size below 9223372036854775807 bytes`},
		"a long name":               {env(strings.Repeat("A", 1<<20)+"=1", "COUNT=x"), `environment COUNT: count = "x": expected a whole number`},
		"a variable without a name": {env("=x", "=", "", "COUNT", "\x00=1", "COUNT=x"), `environment COUNT: count = "x": expected a whole number`},
		"an odd name":               {env("CLIENTS_\x1b[1A\n_TIMEOUT=1s"), `but no entry or service has such a name: name the entry in the settings file`},
		"a flag with NUL":           {flag("count", "1\x00"), `flag --count: count = "1\x00": expected a whole number`},
		"a flag of no name":         {flag("", "1"), `unknown key, expected bank, clients, count, database_url`},
		"a flag of dots":            {flag(strings.Repeat(".", 10_000), "1"), `unknown key`},
		"a URL of control codes":    {flag("bank", "http://h/\r\nX: y"), `expected a URL with a scheme, such as https://host:8080/path`},
		"a URL with two users":      {flag("bank", "http://good.example\\@evil.example/%zz"), `bank = "[redacted]": expected a URL with a scheme, such as https://host:8080/path`},
		"no URL":                    {flag("bank", "//h"), `bank = "//h": expected a URL with a scheme, such as https://host:8080/path`},
		"pairs without a name":      {flag("headers", "=v"), `headers = "[redacted]": expected name=value pairs such as a=1,b=2`},
		"pairs twice":               {flag("headers", "a=v,a=w"), `headers = "[redacted]": a name is given twice, expected name=value pairs such as a=1,b=2`},
		"an empty item":             {flag("keys", "a,,b"), `keys = "[redacted]": item 2 is empty, expected a list such as a,b`},
		"a directory":               {config.Sources{File: dir}, `expected a file, found a directory`},
		"a file without an end":     {config.Sources{File: "/dev/zero"}, `/dev/zero: the file has more than 1048576 bytes`},
		".env without an end":       {config.Sources{DotEnv: "/dev/zero"}, `/dev/zero: the file has more than 1048576 bytes`},
		".env of one long line":     {config.Sources{DotEnv: file("A='" + long[:1<<19]).File}, `the closing ' is missing`},
	}
}

func indented(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()
}

func TestHostileSettings(t *testing.T) {
	t.Parallel()
	cases := hostile(t.TempDir())
	if len(cases) < 30 {
		t.Errorf("%d cases", len(cases))
	}
	for name, test := range cases {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		_, err := config.Load(test.src, config.Target{Into: new(hostileSettings)})
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		all, ok := err.(*config.Errors)
		if !ok || len(*all) == 0 {
			t.Errorf("%s: got %T %v, want an error with %q", name, err, err, test.want)
			continue
		}
		if first := (*all)[0].Error(); !strings.Contains(first, test.want) || strings.ContainsAny(first, "\x00\x1b\n\r") || len(first) > 2<<20 {
			t.Errorf("%s: got %.400q, want %q in it", name, first, test.want)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 10*time.Second || used > 2000 {
			t.Errorf("%s took %v and %d MiB", name, took, used)
		}
	}
}
