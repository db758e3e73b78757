// Package simulation runs a small system of kaptar's through thousands of seeds of faults, by
// kaptartest.Simulate, and compares afterwards what was committed with what was applied.
//
//	go test ./internal/test/simulation                          2,000 seeds
//	KAPTAR_SEEDS=100000 go test -timeout 0 ./internal/test/simulation
package simulation
