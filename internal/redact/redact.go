// Package redact takes passwords out of texts that people see.
package redact

import (
	"regexp"
	"strings"
)

// mask stands for what is hidden; net/url uses the same.
const mask = "xxxxx"

// secret fits the names of parameters that are.
var secret = regexp.MustCompile(`(?i)pass|pwd|secret|token|key|credential`)

// URL returns rawURL without passwords: of a user and password the user stays, a user alone, which
// may be a token, goes; so do parameters with secret's names. rawURL may be several URLs separated
// by commas, and need not be valid: url.Parse refuses just the passwords that were not escaped.
func URL(rawURL string) string {
	// A comma may belong to a password that was not escaped, if there is no URL behind it.
	parts := strings.Split(rawURL, ",")
	for i := len(parts) - 1; i > 0; i-- {
		if !strings.Contains(parts[i], "://") {
			parts[i-1] += "," + parts[i]
			parts = append(parts[:i], parts[i+1:]...)
		}
	}
	for i, part := range parts {
		parts[i] = one(part)
	}
	return strings.Join(parts, ",")
}

func one(s string) string {
	head, rest := "", s
	if i := strings.Index(s, "://"); i >= 0 {
		head, rest = s[:i+3], s[i+3:]
	}
	at := strings.LastIndex(rest, "@")
	if at < 0 && head != "" && strings.HasPrefix(rest, ":") { // a password whose @host was forgotten
		return head + mask
	}
	if at < 0 {
		return head + parameters(rest)
	}
	if user, _, hasPassword := strings.Cut(rest[:at], ":"); hasPassword {
		head += user + ":"
	}
	return head + mask + parameters(rest[at:])
}

// parameters masks the secret ones behind the question mark of s.
func parameters(s string) string {
	head, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	params := strings.Split(query, "&")
	for i, param := range params {
		if name, _, ok := strings.Cut(param, "="); ok && secret.MatchString(name) {
			params[i] = name + "=" + mask
		}
	}
	return head + "?" + strings.Join(params, "&")
}
