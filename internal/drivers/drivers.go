// Package drivers keeps what driver packages register in their init functions, by URL scheme, as database/sql does.
package drivers

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Open opens what a URL names.
type Open[T any] = func(ctx context.Context, url string) (T, error)

// A Set has the drivers of one interface T. Its zero value is empty; its methods may be called concurrently.
type Set[T any] struct {
	mu   sync.RWMutex
	open map[string]Open[T]
}

// Register adds a driver. It panics when the scheme is empty or taken or open is nil, since that is a mistake in the program's
// imports.
func (s *Set[T]) Register(scheme string, open Open[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if scheme == "" || open == nil {
		panic("drivers: a driver needs a scheme and a function")
	}
	if _, taken := s.open[scheme]; taken {
		panic("drivers: scheme " + scheme + " registered twice")
	}
	if s.open == nil {
		s.open = make(map[string]Open[T])
	}
	s.open[scheme] = open
}

// Get returns the function of a scheme, nil if it is unknown.
func (s *Set[T]) Get(scheme string) Open[T] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open[scheme]
}

// Schemes returns the known schemes, sorted.
func (s *Set[T]) Schemes() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.open))
}
