package config_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/kaptar/kaptar/config"
)

// TestYAMLDocuments has the kinds of valid documents that the YAML test suite has, for mappings:
// markers, comments, keys, and every way to write a value.
func TestYAMLDocuments(t *testing.T) {
	t.Parallel()
	type settings struct {
		A, B, C *string
		M       map[string]string
		L       []string
	}
	for doc, want := range map[string]string{
		"":                                     "",
		"# only a comment\n":                   "",
		"---\n...\n":                           "",
		"---\n":                                "",
		"%YAML 1.2\n---\na: 1\n":               "a=1",
		"--- # with a comment\na: 1":           "a=1",
		"a: 1\n...\n":                          "a=1",
		"--- !root\na: 1\n":                    "a=1",
		"--- {a: 1}\n":                         "a=1",
		"{a: 1, b: 2}":                         "a=1 b=2",
		"{a: 1, b: 2,}":                        "a=1 b=2",
		"{\"a\":1,'b':2}":                      "a=1 b=2",
		"{a: 1,\n b: 2\n}\n":                   "a=1 b=2",
		"? a\n: 1\nb: 2\n":                     "a=1 b=2",
		"\"a\": 1\n'b': 2\n":                   "a=1 b=2",
		"a   :   1   \n":                       "a=1",
		"a:\t1\n":                              "a=1",
		"  a: 1\n  b: 2\n":                     "a=1 b=2",
		"a: 1\n\n\n   \nb: 2\n":                "a=1 b=2",
		"a:\n  1\n":                            "a=1",
		"a: one\n  two\n\n  three\n":           "a=one two\nthree",
		"a: 1 # comment\nb: x#y\n":             "a=1 b=x#y",
		"a: http://h:1/p\n":                    "a=http://h:1/p",
		"a: x\\y\n":                            "a=x\\y",
		"a: -1\nb: '-'\n":                      "a=-1 b=-",
		"a: 'it''s'\nb: '\\n'\n":               "a=it's b=\\n",
		"a: \"x\\ny\\u00fc\\x41\\\"\"\n":       "a=x\nyüA\"",
		"a: \"one\n  two\"\n":                  "a=one two",
		"a: \"one\\\n  two\"\n":                "a=onetwo",
		"a: 'one\n\n  two'\n":                  "a=one\ntwo",
		"a: |\n  x\n  y\n":                     "a=x\ny\n",
		"a: |-\n  x # no comment\n":            "a=x # no comment",
		"a: |+\n  x\n\n":                       "a=x\n\n",
		"a: >\n  x\n  y\n":                     "a=x y\n",
		"a: >-\n  x\n\n  y\n":                  "a=x\ny",
		"a: |2-\n    x\n  y\n":                 "a=  x\ny",
		"a: | # comment\n  x\n":                "a=x\n",
		"a: ''\nb: \"\"\n":                     "a= b=",
		"a: ~\nb: null\nc:\n":                  "",
		"a: 1.10\nb: 0x1F\nc: 010\n":           "a=1.10 b=0x1F c=010",
		"a: yes\nb: 2001-12-14\n":              "a=yes b=2001-12-14",
		"a: !!str 1\nb: !own x\n":              "a=1 b=x",
		"!!str a: 1\n":                         "a=1",
		"a: &x 1\nb: *x\n":                     "a=1 b=1",
		"&k a: 1\nb: *k\n":                     "a=1 b=a",
		"a: &x b\n*x : 1\n":                    "a=b b=1",
		"m: {k: 1}\nm2:\n":                     "unknown key",
		"m: {k: 1, l: ''}\n":                   "m.k=1 m.l=",
		"m:\n  a b: 1\n  ключ: x\n":            "m.a b=1 m.ключ=x",
		"m:\n  <<: {k: 1}\n  l: 2\n":           "m.k=1 m.l=2",
		"m:\n  <<: [{k: 1}, {k: 2, l: 3}]\n":   "m.k=1 m.l=3",
		"m: {}\nl: []\n":                       "",
		"l: [a, 'b,c', \"d\"]\n":               "l=a|b,c|d",
		"l:\n- a\n- b # c\n":                   "l=a|b",
		"l:\n  - a\n  -   b\n":                 "l=a|b",
		"l: [a,\n  b,\n]\n":                    "l=a|b",
		"l: &x [a]\nm: {k: 1}\n":               "l=a m.k=1",
		"a: 1\r\nb: |\r\n  x\r\nl:\r\n- y\r\n": "a=1 b=x\n l=y",
	} {
		var s settings
		var got []string
		_, err := config.Load(config.Sources{File: write(t, doc)}, config.Target{Into: &s})
		for i, p := range []*string{s.A, s.B, s.C} {
			if p != nil {
				got = append(got, fmt.Sprintf("%c=%s", 'a'+i, *p))
			}
		}
		if len(s.L) > 0 {
			got = append(got, "l="+strings.Join(s.L, "|"))
		}
		for _, k := range []string{"a b", "k", "l", "ключ"} {
			if v, ok := s.M[k]; ok {
				got = append(got, "m."+k+"="+v)
			}
		}
		if want == "unknown key" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want an unknown key", doc, err)
			}
			continue
		}
		if text := strings.Join(got, " "); err != nil || text != want {
			t.Errorf("%q: got %q, %v, want %q", doc, text, err, want)
		}
	}
}

// wide is text as a Windows editor saves it under the name Unicode.
func wide(order binary.AppendByteOrder, text string) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

func TestFilesOfWindowsEditors(t *testing.T) {
	t.Parallel()
	type settings struct{ A, B string }
	const yaml, env = "a: Grüße\r\nb: y\r\n", "A=Grüße\r\nB=y\r\n"
	for name, as := range map[string]func(string) string{
		"UTF-8":              func(s string) string { return s },
		"UTF-8 with a mark":  func(s string) string { return "\ufeff" + s },
		"UTF-16":             func(s string) string { return wide(binary.LittleEndian, s) },
		"UTF-16, big endian": func(s string) string { return wide(binary.BigEndian, s) },
	} {
		for _, src := range []config.Sources{{File: write(t, as(yaml))}, {DotEnv: write(t, as(env))}} {
			if s, _ := load[settings](t, src); s != (settings{"Grüße", "y"}) {
				t.Errorf("%s: got %q, want Grüße and y", name, s)
			}
		}
	}
	for _, src := range []config.Sources{{File: write(t, "b: y\na: Gr\xfc\xdfe\n")}, {DotEnv: write(t, "B=y\nA=Gr\xfc\xdfe")}} {
		var s settings
		_, err := config.Load(src, config.Target{Into: &s})
		if err == nil || !strings.Contains(err.Error(), ":2: not UTF-8 text") || s.B != "" {
			t.Errorf("Latin-1: got %v and %+v, want an error that names line 2", err, s)
		}
	}
}
