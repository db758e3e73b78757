// Package route matches calls against patterns in the form of http.ServeMux, for settings about
// some calls to a service: "GET /orders/{user_id}", "/user.v1.UserService/GetUser".
package route

import (
	"fmt"
	"strings"
)

// A Pattern is a set of calls: over HTTP those with a method and a path, over gRPC those of a full
// method, which is its path. The zero value matches every call.
type Pattern struct {
	method   string   // "": any
	segments []string // nil: any path; "{}" for one segment of any text, "{...}" at the end for any rest
}

// Parse reads a pattern: an optional HTTP method and a path. Its segments may be {name}, which
// matches one non-empty segment, and at the end {name...}, which matches all the rest. A path
// without a wildcard matches itself alone. "" is the zero Pattern.
func Parse(text string) (Pattern, error) {
	if text == "" {
		return Pattern{}, nil
	}
	method, path, ok := strings.Cut(text, " ")
	if !ok {
		method, path = "", text
	}
	p := Pattern{method: method, segments: strings.Split(path, "/")}
	if p.segments[0] != "" || len(p.segments) < 2 || strings.ContainsAny(path, " ?#") || method != strings.ToUpper(method) {
		return Pattern{}, fmt.Errorf(`route %q: expected a path, with or without a method: "GET /orders/{user_id}" or "/user.v1.UserService/GetUser"`, text)
	}
	for i, s := range p.segments {
		switch wild := strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}"); {
		case wild && strings.HasSuffix(s, "...}") && i == len(p.segments)-1:
			p.segments[i] = "{...}"
		case wild && !strings.HasSuffix(s, "...}"):
			p.segments[i] = "{}"
		case strings.ContainsAny(s, "{}"):
			return Pattern{}, fmt.Errorf("route %q: %q: expected {name} as a whole segment, or {name...} as the last", text, s)
		}
	}
	return p, nil
}

// Match reports whether a call is one of the pattern's. It does not allocate. gRPC's method is
// POST.
func (p Pattern) Match(method, path string) bool {
	if p.method != "" && p.method != method {
		return false
	}
	for i, want := range p.segments {
		if want == "{...}" {
			return true
		}
		segment, rest, more := strings.Cut(path, "/")
		if want == "{}" && segment == "" || want != "{}" && segment != want || more != (i < len(p.segments)-1) {
			return false
		}
		path = rest
	}
	return true
}
