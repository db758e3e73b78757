package config

import (
	"reflect"
	"slices"
	"strings"
)

// A section is the settings struct of one package.
type section struct {
	typ reflect.Type
	pkg string
}

// sections are those that the linked packages have registered.
var sections []section

// RegisterSection adds the settings struct T to every service of a program that links the package
// with the import path pkg. The keys of T are top-level keys. Call it only from an init function of
// that package. [Sections] returns the structs to fill, and [Of] finds a filled one.
func RegisterSection[T any](pkg string) {
	sections = append(sections, section{reflect.TypeFor[T](), pkg})
}

// Sections returns new targets of one service, one for each registered section.
func Sections(service string) []Target {
	out := make([]Target, len(sections))
	for i, s := range sections {
		out[i] = Target{Service: service, Into: reflect.New(s.typ).Interface()}
	}
	return out
}

// Of returns the struct of type T that Load has filled for service, or nil if there is none.
func Of[T any](c *Config, service string) *T {
	for _, t := range c.targets {
		if into, ok := t.Into.(*T); ok && t.Service == service {
			return into
		}
	}
	return nil
}

// importOf has the import path of the package that declares a key, for programs without it.
var importOf = map[string]string{
	"auth":       "github.com/kaptar/kaptar/auth",
	"broker_url": "github.com/kaptar/kaptar/messaging",
	"topics":     "github.com/kaptar/kaptar/messaging",
	"redis_host": "github.com/kaptar/kaptar/cache",
	"redis_url":  "github.com/kaptar/kaptar/cache",
	"otel":       "github.com/kaptar/kaptar/telemetry",
}

// unlinked returns the import path of the package that declares key, if it is not linked, or "".
func unlinked(key string) string {
	if after, own := strings.CutPrefix(key, servicesKey+"."); own {
		_, key, _ = strings.Cut(after, ".")
	}
	pkg := importOf[key]
	if slices.ContainsFunc(sections, func(s section) bool { return s.pkg == pkg }) {
		return ""
	}
	return pkg
}
