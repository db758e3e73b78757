// Package redact removes passwords from texts that people see.
package redact

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// mask replaces what is hidden; net/url uses the same.
const mask = "xxxxx"

// secret matches the names of parameters with secret values.
var secret = regexp.MustCompile(`(?i)pass|pwd|secret|token|key|credential|signature|session|cookie|jwt|authoriz|(^|[_.-])(auth|sig|pw)$`)

// URL returns rawURL without passwords. Of a user and password the user stays; a user alone, which
// may be a token, is hidden. So are the values of parameters whose names match secret, in a query,
// in a list of name=value and elsewhere. rawURL may be several URLs separated by commas, and need
// not be valid: the passwords that url.Parse refuses are those that were not escaped. It cannot
// recognise secrets in a path.
func URL(rawURL string) string {
	// A comma may belong to a password that was not escaped, if there is no URL behind it.
	var out []string
	begin, at := 0, 0
	for part := range strings.SplitSeq(rawURL, ",") {
		if at > 0 && strings.Contains(part, "://") {
			out = append(out, one(rawURL[begin:at-1]))
			begin = at
		}
		at += len(part) + 1
	}
	return strings.Join(append(out, one(rawURL[begin:])), ",")
}

func one(s string) string {
	head, rest := "", s
	if i := strings.Index(s, "://"); i >= 0 {
		head, rest = s[:i+3], s[i+3:]
	}
	isURL := head != ""
	head = mapParameters(head, false)
	at := strings.LastIndex(rest, "@")
	for _, v := range slices.Backward(values(rest, isURL)) {
		if v.begin <= at && at < v.end { // of a password further behind
			at = strings.LastIndex(rest[:v.name], "@")
		}
	}
	switch {
	case at >= 0:
		if user, _, hasPassword := strings.Cut(rest[:at], ":"); hasPassword {
			head += user + ":"
		}
		return head + mask + mapParameters(rest[at:], isURL)
	case isURL && strings.HasPrefix(rest, ":"): // a password whose @host was forgotten
		return head + mask
	case isURL:
		if n := noPort(rest); n >= 0 {
			return head + rest[:n] + mask
		}
	}
	return head + mapParameters(rest, isURL)
}

// noPort returns the position of what cannot be a port: the password of a URL whose @host was
// forgotten or encoded. It is -1 if there is none.
func noPort(s string) int {
	begin, end := 0, strings.IndexAny(s+"/", "/?# \t\n\"'`)")
	for host := range strings.SplitSeq(s[:end], ",") {
		i := 0
		if strings.HasPrefix(host, "[") { // an IPv6 address
			i = strings.Index(host, "]") + 1
		}
		if colon := strings.Index(host[i:], ":"); colon >= 0 {
			i += colon + 1
			after := strings.TrimLeft(host[i:], "0123456789")
			if host[i:] == "" || after != "" && after[0] != ';' {
				return begin + i
			}
		}
		begin += len(host) + 1
	}
	return -1
}

// mapParameters hides the secrets of s, which is a query or a text with parameters in it.
func mapParameters(s string, query bool) string {
	var out strings.Builder
	done := 0
	for _, v := range values(s, query) {
		out.WriteString(s[done:v.begin] + mask)
		done = v.end
	}
	return out.String() + s[done:]
}

// value is the position of a secret parameter: of its name, and of its value after the equals sign.
type value struct{ name, begin, end int }

// The characters before the name of a parameter.
const (
	beforeQuery = "?&;#,"
	beforeWord  = beforeQuery + ":/@'\"`{}()<>| \t\r\n"
)

// values finds the parameters name=value of s whose names match secret. A value ends at the next &
// or, if s is no query, at the next space or the quote that it began with.
func values(s string, query bool) (found []value) {
	before, end := beforeWord, afterWord
	if query {
		before, end = beforeQuery, afterQuery
	}
	for name := 0; name < len(s); {
		i := strings.IndexAny(s[name:], before+"=")
		if i < 0 {
			break
		}
		equals := name + i + len(s[name+i:]) - len(strings.TrimLeft(s[name+i:], " "))
		inHost := query && (strings.ContainsAny(s[name:name+i], ":/@") || name > 0 && s[name-1] == '=')
		if equals == len(s) || s[equals] != '=' || inHost || !isSecret(s[name:name+i]) {
			name += i + 1
			continue
		}
		rest := end(s[equals+1:])
		found = append(found, value{name, equals + 1, len(s) - len(rest)})
		name = len(s) - len(rest)
	}
	return found
}

func isSecret(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	return secret.MatchString(name)
}

// afterQuery returns the rest of a query after the value at its start. What is no name=value
// belongs to the value: an & that was not encoded.
func afterQuery(s string) string {
	for {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			return ""
		}
		if next, _, _ := strings.Cut(s[i+1:], "&"); strings.Contains(next, "=") {
			return s[i:]
		}
		s = s[i+1:]
	}
}

// afterWord returns the rest of s after the word, or the quoted text, at its start.
func afterWord(s string) string {
	s = strings.TrimLeft(s, " ")
	if s == "" || !strings.ContainsRune(`'"{`, rune(s[0])) {
		return s[strings.IndexAny(s+" ", " \t\r\n"):]
	}
	quote := s[0]
	if quote == '{' {
		quote = '}'
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\', s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return s[i+1:]
		}
	}
	return ""
}
