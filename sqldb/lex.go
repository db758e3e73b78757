package sqldb

import (
	"fmt"
	"regexp"
	"strings"
)

// A statement is the text between two semicolons. Statements in the body of a trigger count as
// statements of their own.
type statement struct {
	text string
	// norm is text without comments, with words in upper case and strings and numbers replaced by
	// '. Its parts are separated by one space.
	norm string
	line int
}

// tokens matches one token of each dialect. Its groups are: spaces and comments, strings and
// numbers, quoted names, the start of a token that does not end, and words.
var tokens = map[Dialect]*regexp.Regexp{
	Postgres: regexp.MustCompile(blank + `[eE]'(?:[^'\\]|\\.|'')*'|[0-9][\w.]*)|("(?:[^"]|"")*")|([eE]?'|"|/\*)|` + letters + `)`),
	SQLite:   regexp.MustCompile(blank + `[0-9][\w.]*)|("(?:[^"]|"")*"|\x60(?:[^\x60]|\x60\x60)*\x60|\[[^\]]*\])|(['"\x60[]|/\*)|` + letters + `)`),
}

// The common parts of both: how the groups begin, and the last one.
const (
	blank   = `^(?s:(\s+|--[^\n]*|/\*.*?\*/)|('(?:[^']|'')*'|`
	letters = `([A-Za-z_\x{80}-\x{10ffff}][\w$\x{80}-\x{10ffff}]*)`
)

// dollarTag begins a string of PostgreSQL, which ends with the same tag.
var dollarTag = regexp.MustCompile(`^\$([A-Za-z_\x{80}-\x{10ffff}][\w\x{80}-\x{10ffff}]*)?\$`)

func statements(text string, dialect Dialect) (all []statement, err error) {
	var norm []string
	from, line := 0, 1
	end := func(at int) {
		if len(norm) > 0 {
			all = append(all, statement{text[from:at], strings.Join(norm, " "), line - strings.Count(text[from:at], "\n")})
		}
		norm = nil
	}
	for at := 0; at < len(text); {
		token, n := scan(text[at:], dialect)
		if n == 0 {
			return nil, fmt.Errorf("line %d: %.20q does not end", line, text[at:])
		}
		switch {
		case token == ";":
			end(at)
		case token != "":
			if len(norm) == 0 {
				from = at
			}
			norm = append(norm, token)
		}
		line += strings.Count(text[at:at+n], "\n")
		at += n
	}
	end(len(text))
	return all, nil
}

// scan returns the first token as in a statement's norm, "" for a space, and its length. The length
// is 0 if the token does not end.
func scan(text string, dialect Dialect) (token string, n int) {
	m := tokens[dialect].FindStringSubmatch(text)
	switch {
	case m == nil:
		if tag := dollarTag.FindString(text); tag != "" && dialect == Postgres {
			if end := strings.Index(text[len(tag):], tag); end >= 0 {
				return "'", end + 2*len(tag)
			}
			return "", 0
		}
		return text[:1], 1
	case m[4] != "", dialect == Postgres && strings.HasPrefix(m[1], "/*") && strings.Contains(m[1][2:], "/*"):
		return "", 0 // nested comments are not supported
	case m[2] != "":
		return "'", len(m[0])
	case m[3] != "":
		return strings.ReplaceAll(m[3], " ", "\u2423"), len(m[0])
	}
	return strings.ToUpper(m[5]), len(m[0])
}
