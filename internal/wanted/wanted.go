// Package wanted keeps in a context what it asks of its calls: versions of services, which are
// passed on from service to service, and one instance, which is not.
package wanted

import (
	"context"
	"strings"
)

// Header carries the versions over HTTP, as "user-service=v2, order-service=v3", and Metadata over
// gRPC.
const (
	Header   = "Kaptar-Version"
	Metadata = "kaptar-version"
)

// The limits of a header, since it goes along with every call of a request.
const (
	maxText    = 1024 // bytes
	maxEntries = 16
	maxName    = 64 // bytes of a service or a version
)

// A Set is what a context asks for. Nil, and the zero value, ask for nothing. A Set is immutable.
type Set struct {
	Instance string // ID of the instance that alone may have the calls; "" for any
	text     string
	versions []version
}

type version struct{ service, version string }

// Parse reads a header. It is strict: one that is malformed, too long, or names a service twice
// asks for nothing.
func Parse(text string) *Set {
	if text == "" || len(text) > maxText || strings.Count(text, ",") >= maxEntries {
		return nil
	}
	s := new(Set)
	for entry := range strings.SplitSeq(text, ",") {
		service, name, _ := strings.Cut(strings.Trim(entry, " "), "=")
		if !good(service) || !good(name) || s.Version(service) != "" {
			return nil
		}
		s.versions = append(s.versions, version{service, name})
	}
	s.text = s.format()
	return s
}

// good reports whether the header can hold a name: letters, digits and "-_.+~".
func good(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.+~", c)
	})
}

func (s *Set) format() string {
	var b strings.Builder
	for i, v := range s.versions {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(v.service + "=" + v.version)
	}
	return b.String()
}

// Text returns the value of Header; "" for nothing.
func (s *Set) Text() string {
	if s == nil {
		return ""
	}
	return s.text
}

// Version returns the wanted version of service; "" for any.
func (s *Set) Version(service string) string {
	if s == nil {
		return ""
	}
	for _, v := range s.versions {
		if v.service == service {
			return v.version
		}
	}
	return ""
}

// With returns s with name as the wanted version of service, "" for any. It returns s itself if a
// header cannot hold that.
func (s *Set) With(service, name string) *Set {
	out := new(Set)
	if s != nil {
		out.Instance = s.Instance
		for _, v := range s.versions {
			if v.service != service {
				out.versions = append(out.versions, v)
			}
		}
	}
	if name != "" {
		out.versions = append(out.versions, version{service, name})
	}
	out.text = out.format()
	if !good(service) || name != "" && !good(name) || len(out.versions) > maxEntries || len(out.text) > maxText {
		return s
	}
	return out
}

// Only returns s with a wanted instance.
func (s *Set) Only(instance string) *Set {
	out := new(Set)
	if s != nil {
		*out = *s
	}
	out.Instance = instance
	return out
}

type key struct{}

// From returns the set of ctx, nil for none.
func From(ctx context.Context) *Set {
	s, _ := ctx.Value(key{}).(*Set)
	return s
}

// Context returns ctx with s; ctx itself if s is nil.
func (s *Set) Context(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, s)
}
