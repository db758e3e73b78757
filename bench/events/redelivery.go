package main

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/bench/internal/events"
)

// redelivery shows what becomes of an event that is delivered twice, and of one whose first try fails.
func (m *measurement) redelivery() error {
	const n = 100
	fmt.Fprintf(&m.out, "\n### Redelivery\n\nEffects of %d events. *After the commit*: each handler's transaction is committed, and then "+
		"the first try fails before the acknowledgement, as in a crash. *Before it*: the first try fails and rolls back.\n\n"+
		"| stack | after the commit | before it |\n|---|--:|--:|\n", n)
	for _, stack := range []struct {
		name string
		open func(*events.Faults) func(context.Context, *events.Env) (events.Running, error)
		base *events.Stack
	}{
		{"kaptar", events.Faulty, events.Stacks()[1]},
		{"Watermill", func(f *events.Faults) func(context.Context, *events.Env) (events.Running, error) {
			return rival{queue: true, faults: f}.open
		}, rivals()[2]},
		{"Watermill, deduplicator", func(f *events.Faults) func(context.Context, *events.Env) (events.Running, error) {
			return rival{queue: true, dedup: true, faults: f}.open
		}, rivals()[3]},
	} {
		fmt.Fprintf(&m.out, "| %s |", stack.name)
		for _, committed := range []bool{true, false} {
			faults := events.NewFaults(committed)
			rows, different, err := events.Effects(m.ctx, m.on, &events.Stack{Name: stack.name, Database: stack.base.Database, Open: stack.open(faults)}, faults, n)
			if err != nil {
				return err
			}
			fmt.Fprintf(&m.out, " %d of %d events |", rows, different)
		}
		fmt.Fprintln(&m.out)
	}
	return nil
}
