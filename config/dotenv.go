package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// variable is an environment variable and where it was set.
type variable struct{ value, origin string }

// environment returns the variables of a list as from os.Environ, without the service links of
// Kubernetes. If a name is repeated the last value wins, as in os/exec.
func environment(environ []string) map[string]variable {
	out := map[string]variable{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		out[name] = variable{value, "environment " + name}
	}
	dropServiceLinks(out)
	return out
}

// readDotEnv reads a .env file, which may be missing. It reports each bad line and goes on.
func readDotEnv(path string, p *problems) map[string]variable {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) { // or there is no path
		return nil
	}
	out, lines := map[string]variable{}, map[string]int{}
	rest := strings.ReplaceAll(string(readFile(path, p)), "\r\n", "\n")
	for number := 1; rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		start, origin := number, fmt.Sprintf("%s:%d", path, number)
		number++
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			rest = after
			continue
		}
		name, value, ok := strings.Cut(rest, "=")
		name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "export "))
		if !ok || !variableName.MatchString(name) {
			p.add(&Error{Origin: origin, Problem: "expected NAME=value, a comment or an empty line"})
			rest = after
			continue
		}
		value, remains, problem := dotEnvValue(value)
		if problem != "" { // the end of a broken quoted value is unknown: go on at the next line
			p.add(&Error{Key: name, Origin: origin, Problem: problem})
			rest = after
			continue
		}
		number = start + strings.Count(rest[:len(rest)-len(remains)], "\n")
		rest = remains
		if first, twice := lines[name]; twice {
			p.add(&Error{Key: name, Origin: origin, Problem: fmt.Sprintf("the variable is set twice, first in line %d", first)})
			continue
		}
		lines[name] = start
		out[name] = variable{value, origin}
	}
	return out
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// dotEnvValue parses the value at the start of text, after the "="; rest begins at the next line.
func dotEnvValue(text string) (value, rest, problem string) {
	text = strings.TrimLeft(text, " \t")
	if text == "" || (text[0] != '"' && text[0] != '\'') {
		line, rest, _ := strings.Cut(text, "\n")
		for i := range line {
			if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
				line = line[:i]
				break
			}
		}
		return strings.TrimSpace(line), rest, ""
	}
	quote := text[0]
	var b strings.Builder
	i := 1
	for ; i < len(text) && text[i] != quote; i++ {
		c := text[i]
		if quote == '"' && c == '\\' && i+1 < len(text) {
			i++
			c = text[i]
			if at := strings.IndexByte("ntr", c); at >= 0 {
				c = "\n\t\r"[at]
			} else if !strings.ContainsRune("\"\\$\n", rune(c)) {
				b.WriteByte('\\') // not an escape: both stay
			}
		}
		b.WriteByte(c)
	}
	if i >= len(text) {
		return "", "", fmt.Sprintf("the closing %c is missing", quote)
	}
	tail, rest, _ := strings.Cut(text[i+1:], "\n")
	if tail = strings.TrimSpace(tail); tail != "" && tail[0] != '#' {
		return "", "", fmt.Sprintf("nothing but a comment may follow the closing %c", quote)
	}
	return b.String(), rest, ""
}
