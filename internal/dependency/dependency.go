// Package dependency marks answers that fail because of something that the answering service
// depends on. Callers do not count such an answer against that service; otherwise one service that
// is away would open the breakers of all those in front of it, layer after layer.
package dependency

import (
	"errors"

	"google.golang.org/grpc/status"
)

// Header carries the mark over HTTP, in an answer with status 502, 503 or 504. Its value names what
// is away: a service, a host, a database.
const Header = "Kaptar-Dependency"

// Trailer is the same over gRPC, in the trailer of a call that failed.
const Trailer = "kaptar-dependency"

// An Error is an error with the name of the dependency that caused it. Its text and gRPC status are
// those of Err, since package status would change the message of a wrapped error.
type Error struct {
	Err  error
	Name string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Dependency is for Of.
func (e *Error) Dependency() string { return e.Name }

// GRPCStatus is for package status.
func (e *Error) GRPCStatus() *status.Status { return status.Convert(e.Err) }

// Of returns the name of the dependency that err blames: the result of the first error in its chain
// with a method Dependency. It is "" for any other error, and for nil.
func Of(err error) string {
	if e, ok := errors.AsType[interface {
		error
		Dependency() string
	}](err); ok {
		return e.Dependency()
	}
	return ""
}
