package redact

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Visible returns s with escapes, such as \x1b and \u2028, for what moves a cursor, ends a line,
// changes the writing direction or is invisible, except the characters in keep. Invalid UTF-8
// becomes U+FFFD.
func Visible(s, keep string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// isPlain reports whether s needs no escapes.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
		}
	}
	return true
}

// Lines returns text with every line but the first indented, so that none passes for another
// program's, and with what is invisible escaped.
func Lines(text string) string {
	var b strings.Builder
	for line := range strings.SplitAfterSeq(Visible(text, "\n\t"), "\n") {
		if b.Len() > 0 && line != "" && !strings.HasPrefix(line, "  ") {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return b.String()
}
