package local

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestNextDelay(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ last, lived, want time.Duration }{
		{0, 0, 200 * time.Millisecond},
		{0, time.Hour, 200 * time.Millisecond},
		{200 * time.Millisecond, 0, 400 * time.Millisecond},
		{400 * time.Millisecond, 29 * time.Second, 800 * time.Millisecond},
		{6400 * time.Millisecond, time.Second, 10 * time.Second},
		{10 * time.Second, time.Second, 10 * time.Second},
		{10 * time.Second, 30 * time.Second, 200 * time.Millisecond},
	} {
		if got := nextDelay(test.last, test.lived); got != test.want {
			t.Errorf("nextDelay(%v, %v) = %v, want %v", test.last, test.lived, got, test.want)
		}
	}
}

// writes notes each Write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	return len(b), nil
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine-1)
	for name, test := range map[string]struct{ in, want []string }{
		"in pieces":         {[]string{"a", "b\nc", "\n"}, []string{"s: ab\n", "s: c\n"}},
		"several at once":   {[]string{"a\n\nb\n"}, []string{"s: a\n", "s: \n", "s: b\n"}},
		"without line end":  {[]string{"a\nb"}, []string{"s: a\n", "s: b\n"}},
		"as long as it may": {[]string{long, "\n"}, []string{"s: " + long + "\n"}},
		"too long":          {[]string{long + "y", "z\n"}, []string{"s: " + long + "y\n", "s: z\n"}},
	} {
		var out writes
		l := &lines{out: &out, name: "s"}
		for _, in := range test.in {
			if n, err := io.WriteString(l, in); n != len(in) || err != nil {
				t.Errorf("%s: Write = %d, %v, want %d", name, n, err, len(in))
			}
		}
		l.end()
		if got, want := strings.Join(out.all, "|"), strings.Join(test.want, "|"); got != want {
			t.Errorf("%s: got %.200q, want %.200q", name, got, want)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cut  int // bytes that are lost at the end
		want []string
	}{
		"all":             {0, []string{"a\n  of two lines\n", "", "b\n"}},
		"killed in text":  {1, []string{"a\n  of two lines\n", "", "b\n"}},
		"killed before":   {2, []string{"a\n  of two lines\n", ""}},
		"killed in front": {3, []string{"a\n  of two lines\n", ""}},
	} {
		var pipe bytes.Buffer
		f := &frames{w: &pipe}
		for _, record := range []string{"a\n  of two lines\n", "", "b\n"} {
			if n, err := io.WriteString(f, record); n != len(record) || err != nil {
				t.Errorf("Write(%q) = %d, %v, want %d", record, n, err, len(record))
			}
		}
		pipe.Truncate(pipe.Len() - test.cut)
		var out writes
		readFrames(&out, &pipe)
		if got, want := strings.Join(out.all, "|"), strings.Join(test.want, "|"); strings.TrimRight(got, "|") != strings.TrimRight(want, "|") {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
