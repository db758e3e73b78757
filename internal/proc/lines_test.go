package proc

import (
	"io"
	"strings"
	"testing"
)

// writes notes each Write.
type writes []string

func (w *writes) Write(b []byte) (int, error) {
	*w = append(*w, string(b))
	return len(b), nil
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine-len("s: ")-1)
	for name, test := range map[string]struct{ in, want []string }{
		"in pieces":             {[]string{"a", "b\nc", "\n"}, []string{"s: ab\n", "s: c\n"}},
		"several at once":       {[]string{"a\n\nb\nc"}, []string{"s: a\ns: \ns: b\n", "s: c\n"}},
		"without line end":      {[]string{"a\nb"}, []string{"s: a\n", "s: b\n"}},
		"as long as it may":     {[]string{long, "\n"}, []string{"s: " + long + "\n"}},
		"too long":              {[]string{long + "y", "z\n"}, []string{"s: " + long + "y\n", "s: … z\n"}},
		"a character in pieces": {[]string{"\xe2", "\x82", "\xac\n"}, []string{"s: €\n"}},
		"forged":                {[]string{"a\r\nb\rother: c\x1b[2K\u2028d\u202e\xff\n"}, []string{"s: a\ns: b\\rother: c\\x1b[2K\\u2028d\\u202e\ufffd\n"}},
	} {
		var out writes
		l := &Lines{W: &out, Prefix: "s: "}
		for _, in := range test.in {
			if n, err := io.WriteString(l, in); n != len(in) || err != nil {
				t.Errorf("%s: Write = %d, %v, want %d", name, n, err, len(in))
			}
		}
		l.flush()
		if got, want := strings.Join(out, "|"), strings.Join(test.want, "|"); got != want {
			t.Errorf("%s: got %.200q, want %.200q", name, got, want)
		}
	}
}
