package discovery

import (
	"context"
	"fmt"
	"testing"
)

func TestMemoryForgetsServicesNobodyNeeds(t *testing.T) {
	t.Parallel()
	m := new(Memory)
	for i := range 100 {
		name := fmt.Sprint("wrong-", i)
		ctx, cancel := context.WithCancel(t.Context())
		if err := m.Watch(ctx, name, func([]Instance) { cancel() }); err != nil {
			t.Fatal(err)
		}
		in := Instance{ID: "a", Service: name}
		if err := m.Register(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if err := m.Deregister(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(m.services); got != 0 {
		t.Errorf("%d services are remembered, want none", got)
	}
}
