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

// Secret is a string that hides its text. It is shown as "[redacted]" when it is printed with any
// verb of fmt, marshalled to JSON or text, or logged with slog. The empty Secret is shown as "", so
// that one can see whether it was set. Reveal returns the text.
//
// fmt does not call methods of unexported struct fields: do not print a struct with a Secret in
// one.
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

// Format redacts the text for every verb, including those that do not call String, such as %x.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || (verb == 'v' && f.Flag('#')) {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text)
}

// MarshalText returns the redacted text; encoding/json and YAML encoders use it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns the redacted text for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// showSecret returns a secret for display. If the last part of its key says that it is a URL, and
// it is one, only its secret parts are hidden.
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
	if path != "" { // in the URL of a web hook the path is the secret
		path = "/" + redacted
	}
	return scheme + "://" + host + path
}

// hidePassword redacts the credentials of each URL in text. It is for values that are not a Secret.
func hidePassword(text string) string {
	_, rest, ok := strings.Cut(text, "://")
	host := rest[:strings.IndexAny(rest+"/", "/?#")]
	if !ok || !strings.ContainsAny(host, ":@") && strings.Contains(rest, "@") && !strings.Contains(rest, "://") {
		return text // no URL, or one with an @ in its path
	}
	return redact.URL(text)
}
