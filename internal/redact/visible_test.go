package redact_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/redact"
)

func TestVisible(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain, tea für zwei 😀": "plain, tea für zwei 😀", "a\x1b[2Jb": `a\x1b[2Jb`, "\u202e\u2028\u0085": `\u202e\u2028\u0085`,
		"\xff": "\ufffd", "a\r\nb\tc": `a\r\nb` + "\tc", "'": "'", "\x7f": `\x7f`,
	} {
		if got := redact.Visible(in, "\t"); got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"one": "one", "one\ntwo\n": "one\n  two\n", "2 problems\n  a\n  b": "2 problems\n  a\n  b",
		"server says x\nshop: all is well": "server says x\n  shop: all is well", "x\rshop: fine\u2028\x1b[1A": `x\rshop: fine\u2028\x1b[1A`,
	} {
		if got := redact.Lines(in); got != want {
			t.Errorf("Lines(%q) = %q, want %q", in, got, want)
		}
	}
}
