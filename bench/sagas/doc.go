// Command sagas measures the same checkout as a saga of kaptar and as a workflow of DBOS Transact, side
// by side on one PostgreSQL, and kills both:
//
//	go run . [-rounds 7] [-sagas 2000] [-at 64] [-kills 10]
//
// A round starts as many checkouts of three steps, so many at a time, each of which waits for its end;
// rounds of the two take turns. Both have a pool of 20 connections, their default, and
// synchronous_commit on. The calls of the steps do nothing, so that what is measured is what it costs
// to write a step down.
//
// checkout_kaptar.go, checkout_dbos.go and checkout_temporal.go are the same checkout as a user writes it
// for each. That of Temporal is compiled and not run: it needs a cluster of servers.
//
// It is a module of its own for the sake of its rivals' modules.
package main
