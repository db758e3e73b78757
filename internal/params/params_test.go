package params_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/params"
)

// TestRead: a mistake is an error that says what was expected, without the value of what is not
// known.
func TestRead(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                        "",
		"d=1s&n=2&b=true&w=b&t=x": "",
		"d=1s&d=2s":               "parameter d is given 2 times",
		"d=999ms":                 `parameter d="999ms": expected a duration of 1s or more, such as 30s`,
		"d=1":                     "expected a duration",
		"n=0":                     `parameter n="0": expected a number from 1 to 2`,
		"n=3":                     "expected a number from 1 to 2",
		"n=x":                     "expected a number from 1 to 2",
		"b=yes":                   `parameter b="yes": expected true or false`,
		"w=":                      `parameter w="": expected a, b or c`,
		"t=":                      `parameter t="": expected a text`,
		"token=secret":            `unknown parameter "token": expected one of b, d, n, t, w`,
		"a;secret":                "cannot be read: expected ?name=value&name=value",
	} {
		var (
			d    time.Duration
			n    int
			b    bool
			w, s string
		)
		err := params.Read(query, map[string]params.Param{
			"d": params.Duration(&d, time.Second), "n": params.Int(&n, 1, 2), "b": params.Bool(&b),
			"w": params.Word(&w, "a", "b", "c"), "t": params.Text(&s, "a text"),
		})
		switch {
		case want == "":
			if all := strings.HasPrefix(query, "d="); err != nil || all && (d != time.Second || n != 2 || !b || w != "b" || s != "x") {
				t.Errorf("Read(%q): %v, with %v %d %v %q %q", query, err, d, n, b, w, s)
			}
		case err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret"):
			t.Errorf("Read(%q): %v, want %q and no secret", query, err, want)
		}
	}
}
