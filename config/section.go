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

// sections are what the linked packages have registered.
var sections []section

// RegisterSection adds the settings struct T to those of every service of a program that links the
// package pkg, an import path. The keys of T stand at the top level. It is called from an init
// function of pkg. [Sections] makes the structs to fill, and [Of] finds one that is filled.
func RegisterSection[T any](pkg string) {
	sections = append(sections, section{reflect.TypeFor[T](), pkg})
}

// Sections returns a new target for each registered section, for one service.
func Sections(service string) []Target {
	out := make([]Target, len(sections))
	for i, s := range sections {
		out[i] = Target{Service: service, Into: reflect.New(s.typ).Interface()}
	}
	return out
}

// Of returns the struct of type T that was filled for service; nil when there was no such target.
func Of[T any](c *Config, service string) *T {
	for _, t := range c.targets {
		if into, ok := t.Into.(*T); ok && t.Service == service {
			return into
		}
	}
	return nil
}

// importOf is the package that brings a key of the toolkit, for programs that do not link it.
var importOf = map[string]string{
	"auth":       "github.com/kaptar/kaptar/auth",
	"broker_url": "github.com/kaptar/kaptar/messaging",
	"topics":     "github.com/kaptar/kaptar/messaging",
	"redis_host": "github.com/kaptar/kaptar/cache",
	"redis_url":  "github.com/kaptar/kaptar/cache",
	"otel":       "github.com/kaptar/kaptar/telemetry",
}

// unlinked returns the import path of the package that would know key if it were linked, or "".
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
