package kv

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limits of every store, in bytes.
const (
	MaxKey   = 200
	MaxValue = 64 << 10
)

// CheckKey returns an error that wraps ErrInvalid and names the key unless it has the form that
// every store takes: up to MaxKey bytes; segments, separated by "/", of letters (A-Z, a-z), digits,
// "-", "_" and ".", none of them empty; a "." stands between two other characters of its segment.
// Drivers call it first in Get, Put, PutIf and Delete.
func CheckKey(key string) error { return check("key", key, key) }

// Segment is name as a segment of a key: what is no letter (A-Z, a-z), digit, "-", "_" or "." is "_".
// It leaves dots that CheckKey would refuse.
func Segment(name string) string { return outside.ReplaceAllString(name, "_") }

var outside = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// CheckPrefix returns an error that wraps ErrInvalid and names the prefix unless a key can begin
// with it: it may be empty and may end with "/" or ".". Drivers call it first in Watch.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	rest := prefix
	if last := prefix[len(prefix)-1]; last == '/' || last == '.' {
		rest += "x" // what may follow
	}
	return check("prefix", prefix, rest)
}

// CheckValue returns an error that wraps ErrInvalid when the value is too large. Drivers call it in
// Put and PutIf.
func CheckValue(key string, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w value of %s: it has %d bytes, at most %d are possible", ErrInvalid, key, len(value), MaxValue)
	}
	return nil
}

// check tests text, and calls it name in errors.
func check(kind, name, text string) error {
	if len(text) > MaxKey {
		return fmt.Errorf("%w %s %q: it has %d bytes, at most %d are possible", ErrInvalid, kind, name, len(name), MaxKey)
	}
	for segment := range strings.SplitSeq(text, "/") {
		if segment == "" {
			return fmt.Errorf("%w %s %q: it has an empty segment, expected segments separated by single slashes", ErrInvalid, kind, name)
		}
		if c := outside.FindString(segment); c != "" {
			return fmt.Errorf("%w %s %q: %q is not possible, expected letters, digits, - _ . and /", ErrInvalid, kind, name, c)
		}
		// Servers give such dots a meaning: "." and ".." in paths, empty tokens in NATS subjects.
		if slices.Contains(strings.Split(segment, "."), "") {
			return fmt.Errorf("%w %s %q: a dot must stand between two other characters of a segment", ErrInvalid, kind, name)
		}
	}
	return nil
}

// Changes returns a function that calls update with copies, ordered by key, of the first list that
// it is given and of each that differs from the one before. It is for Stores, and may not be called
// concurrently.
func Changes(update func([]Entry)) func([]Entry) {
	var last []Entry // nil: none yet
	return func(list []Entry) {
		list = sorted(list)
		if last == nil || !slices.EqualFunc(list, last, Entry.Equal) {
			last = list
			update(sorted(list))
		}
	}
}

// sorted returns copies in the order of their keys, never nil.
func sorted(list []Entry) []Entry {
	out := make([]Entry, 0, len(list))
	for _, e := range list {
		e.Value = bytes.Clone(e.Value)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return out
}
