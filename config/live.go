package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
)

// Live is a setting that follows its source while the program runs: see [Config.Watch]. T is any
// type that has one line of text: a scalar, a slice of scalars, a Secret; not a struct or a map.
//
// The zero value gives the zero T. A copy of a Live that was loaded follows the same source. Get
// may be called from any goroutine; slices that it returns are shared and must not be changed.
type Live[T any] struct {
	cell *atomic.Pointer[T]
}

// NewLive returns a Live that holds v for good, for settings that are set in code.
func NewLive[T any](v T) Live[T] {
	l := Live[T]{cell: new(atomic.Pointer[T])}
	l.cell.Store(&v)
	return l
}

// Get returns the value of this moment.
func (l Live[T]) Get() T {
	if l.cell == nil {
		var zero T
		return zero
	}
	return *l.cell.Load()
}

// Format prints the value as fmt would print a T.
func (l Live[T]) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), l.Get())
}

// MarshalJSON marshals the value of this moment.
func (l Live[T]) MarshalJSON() ([]byte, error) { return json.Marshal(l.Get()) }

// LogValue logs the value of this moment.
func (l Live[T]) LogValue() slog.Value { return slog.AnyValue(l.Get()) }

// liveField is what Load and Watch need of a *Live[T] without knowing T.
type liveField interface {
	liveType() reflect.Type
	liveGet() reflect.Value
	// liveSet stores v, of liveType, in the cell that all copies share, or in a fresh one.
	liveSet(v reflect.Value, fresh bool)
}

func (l *Live[T]) liveType() reflect.Type { return reflect.TypeFor[T]() }

func (l *Live[T]) liveGet() reflect.Value {
	v := l.Get()
	return reflect.ValueOf(&v).Elem()
}

func (l *Live[T]) liveSet(v reflect.Value, fresh bool) {
	var value T
	reflect.ValueOf(&value).Elem().Set(v)
	if fresh || l.cell == nil {
		l.cell = new(atomic.Pointer[T])
	}
	l.cell.Store(&value)
}
