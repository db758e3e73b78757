package config

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/internal/redact"
)

// redacted stands for every secret that is shown.
const redacted = "[redacted]"

// Secret is a string that does not show itself: printed with any verb of fmt, marshalled to JSON or
// text, or logged with slog it is "[redacted]"; the empty Secret stays "", so that one sees whether
// it was set. Reveal gives the text.
//
// fmt cannot call methods on unexported struct fields: keep secrets in exported fields or do not
// print the struct.
type Secret string

// Reveal returns the secret text.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]", or "" for the empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format redacts under every verb, also those (%x, %d) that do not ask for String.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || (verb == 'v' && f.Flag('#')) {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text)
}

// MarshalText returns the redacted text; encoding/json and YAML encoders use it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue redacts in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// showSecret is what people see of a secret text. When the name of its key, the last part, says
// that it is a URL, and it is one, only what is secret in it is hidden.
func showSecret(name, text string) string {
	scheme, rest, _ := strings.Cut(text, ":")
	isURL := strings.HasPrefix(rest, "//") && !strings.ContainsAny(scheme, "/@?# ") ||
		slices.Contains([]string{"sqlite", "static", "memory"}, scheme)
	named := slices.ContainsFunc([]string{"_url", "_uri", "_endpoint"}, func(end string) bool { return strings.HasSuffix("_"+name, end) })
	if !isURL || !named {
		return Secret(text).String()
	}
	shown := redact.URL(text)
	if scheme != "http" && scheme != "https" {
		return shown
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(shown, scheme+"://"), "/")
	if path != "" { // which is the secret of a web hook
		path = "/" + redacted
	}
	return scheme + "://" + host + path
}

// hidePassword redacts the credentials of each URL in text, for values that are no Secret.
func hidePassword(text string) string {
	_, rest, ok := strings.Cut(text, "://")
	host := rest[:strings.IndexAny(rest+"/", "/?#")]
	if !ok || !strings.ContainsAny(host, ":@") && strings.Contains(rest, "@") && !strings.Contains(rest, "://") {
		return text // no URL, or one with an @ in its path
	}
	return redact.URL(text)
}
