// Package near finds the name that was probably meant.
package near

import (
	"regexp"
	"strings"
)

// Find returns the one of known, which does not contain name, that is most like name, or "" if none
// is similar. Case, dashes and underscores make no difference.
func Find(name string, known []string) string {
	return closest(name, known, max(1, len(name)/3))
}

// Typo returns the one of known of which name, which may be correct, is most probably a
// misspelling, or "". Names that differ only in digits, as order.v1 and order.v2, do not count.
func Typo(name string, known []string) string {
	most := 0
	switch {
	case len(name) >= 8:
		most = 2
	case len(name) >= 5:
		most = 1
	}
	like := closest(name, known, most)
	if like != "" && digits.ReplaceAllString(like, "") == digits.ReplaceAllString(name, "") {
		return ""
	}
	return like
}

var digits = regexp.MustCompile(`\p{Nd}`)

func closest(name string, known []string, most int) (best string) {
	least := most + 1
	name = plain(name)
	for _, candidate := range known {
		if d := distance(name, plain(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// plain makes databaseURL, database-url and DATABASE_URL the same.
func plain(name string) string { return separators.Replace(strings.ToLower(name)) }

var separators = strings.NewReplacer("_", "", "-", "")

// distance counts the insertions, deletions, changes and swaps of neighbours that turn a into b.
// Long names are cut: the work grows with the product of the lengths.
func distance(a, b string) int {
	const longest = 100
	a, b = a[:min(len(a), longest)], b[:min(len(b), longest)]
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
