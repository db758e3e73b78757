package main

import (
	"fmt"
	"testing"
	"time"
)

// TestMutantsFit keeps the list from rotting: every change still has its line.
func TestMutantsFit(t *testing.T) {
	t.Chdir("../../..")
	for _, m := range mutants() {
		if _, err := m.mutate(); err != nil {
			t.Errorf("%s: %v", m.promise, err)
		}
	}
}

// TestTouched: a change asks for the mutants of its packages and of their tests, and of no other.
func TestTouched(t *testing.T) {
	t.Parallel()
	all := []mutant{{file: "run.go", pkg: "."}, {file: "sqldb/sqlite.go", pkg: "./sqldb"}, {file: "shop/order/worker.go", pkg: "./shop"}}
	for changed, want := range map[string]int{
		"run.go": 1, "live_test.go": 1, "sqldb/new.go": 1, "shop/order/x.go": 1, "shop/system_test.go": 1, "README.md": 0, "sqldb/doc.md": 0, "kv/kv.go": 0,
	} {
		if got := touched(all, []string{changed}); len(got) != want {
			t.Errorf("a change of %s touches %v, want %d", changed, got, want)
		}
	}
}

// TestDeadline: time that is up starts no second mutant.
func TestDeadline(t *testing.T) {
	t.Parallel()
	bad := mutant{promise: "p", file: "no/such.go"}
	if _, err := run(t.Context(), []mutant{bad}, time.Now()); err == nil || fmt.Sprint(err) != "p: open no/such.go: no such file or directory" {
		t.Errorf("run = %v, want the error of the first mutant, which is tried in any case", err)
	}
	if n, err := run(t.Context(), nil, time.Now()); n != 0 || err != nil {
		t.Errorf("run of nothing = %d, %v", n, err)
	}
}
