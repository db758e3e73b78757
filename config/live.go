package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
)

// Live is a setting that follows its source while the program runs, see [Config.Watch]. T is any
// type with one line of text: a scalar, a slice of scalars or a Secret, not a struct or map.
//
// The zero value holds the zero T. Copies of a Live that Load has filled follow the same source.
// Get may be called concurrently. Slices that it returns are shared and must not be changed.
type Live[T any] struct {
	cell *atomic.Pointer[T]
}

// NewLive returns a Live that always holds v, for settings that are set in code.
func NewLive[T any](v T) Live[T] {
	l := Live[T]{cell: new(atomic.Pointer[T])}
	l.cell.Store(&v)
	return l
}

// Get returns the current value.
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

// MarshalJSON marshals the current value.
func (l Live[T]) MarshalJSON() ([]byte, error) { return json.Marshal(l.Get()) }

// LogValue returns the current value for slog.
func (l Live[T]) LogValue() slog.Value { return slog.AnyValue(l.Get()) }

// liveField is what Load and Watch need of a *Live[T] without knowing T.
type liveField interface {
	liveType() reflect.Type
	liveGet() reflect.Value
	// liveSet stores v, of liveType, in the cell that all copies share, or in a new cell if fresh.
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
