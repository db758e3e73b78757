package main

import "testing"

// TestMutantsFit keeps the list from rotting: every change still has its line.
func TestMutantsFit(t *testing.T) {
	t.Chdir("../../..")
	for _, m := range mutants() {
		if _, err := m.mutate(); err != nil {
			t.Errorf("%s: %v", m.promise, err)
		}
	}
}
