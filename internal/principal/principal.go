// Package principal has the context key of auth's principal, for packages below auth.
package principal

import (
	"context"
	"fmt"
)

// Key is the key of the value in the context.
type Key struct{}

// Tag identifies the principal of ctx: what is kept for one principal must not be given to another.
// Principals have the same text if they are equal in all fields.
func Tag(ctx context.Context) string { return fmt.Sprintf("%+q", ctx.Value(Key{})) }

// Name returns the name of the principal of ctx, for records; "" is nobody.
func Name(ctx context.Context) string {
	if p, ok := ctx.Value(Key{}).(interface{ Name() string }); ok {
		return p.Name()
	}
	return ""
}
