package main

import (
	"os"
	"testing"
)

// TestMutantsFit keeps the list from rotting: every change still has its line.
func TestMutantsFit(t *testing.T) {
	if err := os.Chdir("../.."); err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		if _, err := m.mutate(); err != nil {
			t.Errorf("%s: %v", m.promise, err)
		}
	}
}
