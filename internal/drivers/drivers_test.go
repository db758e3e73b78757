package drivers_test

import (
	"context"
	"slices"
	"testing"

	"github.com/kaptar/kaptar/internal/drivers"
)

func TestSet(t *testing.T) {
	t.Parallel()
	var s drivers.Set[int]
	one := func(context.Context, string) (int, error) { return 1, nil }
	s.Register("b", one)
	s.Register("a", one)
	if got := s.Schemes(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Schemes = %v, want a and b", got)
	}
	if s.Get("b") == nil || s.Get("c") != nil {
		t.Error("Get of b is nil, or of c is not")
	}
	for name, register := range map[string]func(){
		"a taken scheme": func() { s.Register("a", one) },
		"no scheme":      func() { s.Register("", one) },
		"no function":    func() { s.Register("c", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Register of %s did not panic", name)
				}
			}()
			register()
		}()
	}
}
