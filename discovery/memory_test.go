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

// TestChangesCopiesWhatHasChanged: what a registry tells again, because it was asked or because
// another service changed, costs no copies of thousands of instances.
func TestChangesCopiesWhatHasChanged(t *testing.T) {
	list := make([]Instance, 5000)
	for i := range list {
		list[i] = Instance{ID: fmt.Sprintf("i%05d", i), Service: "s", Tags: []string{"http"}, Meta: map[string]string{"zone": "a"}}
	}
	updates := 0
	tell := Changes(func([]Instance) { updates++ })
	tell(list)
	if n := testing.AllocsPerRun(5, func() { tell(list) }); n > 50 || updates != 1 {
		t.Errorf("the same list again: %v allocations and %d updates, want some and one", n, updates)
	}
	n := 0
	allocations := testing.AllocsPerRun(5, func() { n++; list[100].Version = fmt.Sprint(n); tell(list) })
	if perInstance := allocations / 5000; perInstance > 4 { // one copy of tags and of meta, for who is told
		t.Errorf("one change: %v allocations for each instance, want those of one copy", perInstance)
	}
}
