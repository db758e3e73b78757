package config

import (
	"fmt"
	"strings"
)

// suggestion returns the end of an error about an unknown name: ", did you mean …?", or the known names when none is near.
func suggestion(name string, known []string) string {
	best, distance := "", 1+max(1, len(name)/3)
	for _, candidate := range known {
		if d := editDistance(plainName(name), plainName(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	if best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ", expected " + someNames(known)
}

// plainName makes databaseURL, database-url and DATABASE_URL the same.
func plainName(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// someNames lists names for an error, not too many.
func someNames(names []string) string {
	const most = 12
	switch {
	case len(names) == 0:
		return "none (nothing is declared here)"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// editDistance counts the insertions, deletions, changes and swaps of neighbours that turn a into b.
// Long names are cut: the work grows with the product of the lengths.
func editDistance(a, b string) int {
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
