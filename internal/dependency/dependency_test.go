package dependency

import (
	"errors"
	"fmt"
	"testing"
)

type away string

func (a away) Error() string      { return string(a) + " is away" }
func (a away) Dependency() string { return string(a) }

func TestOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("away"), ""},
		{away("bank"), "bank"},
		{fmt.Errorf("charge: %w", away("bank")), "bank"},
		{errors.Join(errors.New("first"), away("bank")), "bank"},
	} {
		if got := Of(tc.err); got != tc.want {
			t.Errorf("Of(%v) = %q, want %q", tc.err, got, tc.want)
		}
	}
}
