package config

import (
	"fmt"
	"strings"

	"github.com/kaptar/kaptar/internal/near"
)

// suggestion returns the end of an error about an unknown name: ", did you mean …?", or the known
// names when none is near.
func suggestion(name string, known []string) string {
	if best := near.Find(name, known); best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ", expected " + someNames(known)
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
