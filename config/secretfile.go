package config

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/kaptar/kaptar/internal/redact"
)

// fileSuffix ends the name of a variable that names a file with the secret.
const fileSuffix = "_FILE"

// maxSecret is the largest size of such a file in bytes.
const maxSecret = 64 << 10

// fileText is the content of such a file, or what is wrong with it.
type fileText struct{ text, problem string }

// value returns the value of f from the variable name, or from the file that name with fileSuffix
// names. It returns nil if neither is set.
func (b *envReader) value(f *field, name, key string) *node {
	v, given := b.vars[name]
	given = given && (v.value != "" || f.empty)
	b.used[name] = b.used[name] || given
	file := b.vars[name+fileSuffix]
	if !f.secret || file.value == "" {
		if !given {
			return nil
		}
		return newScalar(v.value, v.origin)
	}
	b.used[name+fileSuffix] = true
	if given {
		b.problems.add(&Error{Key: key, Origin: file.origin, Problem: fmt.Sprintf("%s is set too (%s): unset one of them", name, v.origin)})
		return nil
	}
	read, known := b.files[file.value]
	if !known {
		read = readSecret(file.value)
		b.files[file.value] = read
	}
	if read.problem != "" {
		b.problems.add(&Error{Key: key, Origin: file.origin, Problem: read.problem})
		return nil
	}
	out := newScalar(read.text, "file "+shownPath(file.value))
	if f.leaf.Kind() == reflect.Slice && strings.Contains(read.text, "\n") {
		out.kind = kindList
		for line := range strings.Lines(read.text) {
			if line = strings.TrimSpace(line); line != "" {
				out.items = append(out.items, newScalar(line, out.origin))
			}
		}
	}
	return out
}

func readSecret(path string) fileText {
	data, err := readLimited(path, maxSecret)
	text := strings.TrimRight(string(toUTF8(data)), "\r\n")
	var problem string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = "does not exist"
	case err != nil:
		if inner, ok := errors.AsType[*fs.PathError](err); ok {
			err = inner.Err // the path is told already
		}
		problem = fmt.Sprintf("cannot be read: %v", err)
	case len(data) > maxSecret:
		problem = fmt.Sprintf("has more than %d bytes", maxSecret)
	case text == "":
		problem = "is empty"
	case !utf8.ValidString(text) || strings.Contains(text, "\x00"):
		problem = "is not UTF-8 text"
	default:
		return fileText{text: text}
	}
	return fileText{problem: "the file " + shownPath(path) + " " + problem}
}

// shownPath returns path for display. It may be the secret itself, set by mistake.
func shownPath(path string) string {
	return redact.Visible(redact.URL(path), "")
}
