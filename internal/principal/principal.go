// Package principal is where a context has the principal of package auth, for packages that auth
// imports.
package principal

import (
	"context"
	"fmt"
)

// Key is the key of the value in the context.
type Key struct{}

// Tag tells whom the calls of ctx are made for: what is kept for one must not be given to another. It
// is the same text for principals that are equal in all their fields, and another one for all others.
func Tag(ctx context.Context) string { return fmt.Sprintf("%+q", ctx.Value(Key{})) }

// Name is the name of whom the calls of ctx are made for, for records; "" is nobody.
func Name(ctx context.Context) string {
	if p, ok := ctx.Value(Key{}).(interface{ Name() string }); ok {
		return p.Name()
	}
	return ""
}
