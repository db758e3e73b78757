package wanted_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/wanted"
)

// hostile are headers that want nothing: none is read in part.
func hostile() map[string]string {
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("s%d=v", i)
	}
	return map[string]string{
		"nothing": "", "a space": " ", "no version": "a", "an empty version": "a=", "no service": "=v2", "only =": "=",
		"an empty entry": "a=1,,b=2", "a comma at the end": "a=1,", "a comma in front": ",a=1", "a service twice": "a=1, a=1",
		"two versions": "a=1=2", "a space within": "a= 1", "a space before =": "a =1", "a tab": "a=1,\tb=2", "quotes": `a="1"`,
		"a semicolon": "a=1;b=2", "a path": "a=../1", "not ASCII": "a=vé", "not UTF-8": "a=\xff", "a line": "a=1\r\nX: y", "a zero": "a=\x00",
		"17 entries": strings.Join(many, ","), "a long name": strings.Repeat("a", 65) + "=1", "a long version": "a=" + strings.Repeat("1", 65),
		"a bad entry after a good": "a=1, b", "2 KiB": strings.Repeat(" ", 2048) + "a=1", "a weight": "a=1;q=0.5", "a wildcard": "*=v2",
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for what, text := range hostile() {
		if s := wanted.Parse(text); s != nil {
			t.Errorf("%s: %q is read as %q, want nothing", what, text, s.Text())
		}
	}
	s := wanted.Parse("user-service=v2,order-service=1.2.3+b_4~rc")
	if s.Text() != "user-service=v2, order-service=1.2.3+b_4~rc" || s.Version("user-service") != "v2" ||
		s.Version("order-service") != "1.2.3+b_4~rc" || s.Version("payment-service") != "" || s.Instance != "" {
		t.Errorf("got %q", s.Text())
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	var none *wanted.Set
	s := none.With("a", "v1").With("b", "v2").Only("b-1").With("a", "v3")
	if s.Text() != "b=v2, a=v3" || s.Instance != "b-1" {
		t.Errorf("got %q and instance %q, want b=v2, a=v3 and b-1", s.Text(), s.Instance)
	}
	for what, name := range map[string]string{"a space": "v 2", "a comma": "v2,c=v1", "a long one": strings.Repeat("v", 65)} {
		if got := s.With("c", name); got.Text() != s.Text() {
			t.Errorf("%s: got %q, want no change", what, got.Text())
		}
	}
	if got := s.With("a", "").With("b", ""); got.Text() != "" || none.Version("a") != "" || none.Text() != "" {
		t.Errorf("with both taken back: %q, want nothing", got.Text())
	}
	for i := range 20 {
		s = s.With(fmt.Sprintf("s%d", i), "v")
	}
	if n := strings.Count(s.Text(), "="); n != 16 {
		t.Errorf("%d entries, want the bound of 16", n)
	}
}

// FuzzParse: what is read is read the same again from what is sent on, and within the bounds.
func FuzzParse(f *testing.F) {
	for _, text := range hostile() {
		f.Add(text)
	}
	f.Add("user-service=v2, order-service=v3")
	f.Fuzz(func(t *testing.T, text string) {
		s := wanted.Parse(text)
		if s == nil {
			return
		}
		again := wanted.Parse(s.Text())
		if s.Text() == "" || again == nil || again.Text() != s.Text() || strings.ContainsAny(s.Text(), "\r\n\x00;\"") {
			t.Errorf("%q is sent on as %q, and that is read as %q", text, s.Text(), again.Text())
		}
	})
}
