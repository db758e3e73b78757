package mutants

// simulations: what a seed of internal/test/simulation finds.
func simulations() []mutant {
	const pkg, test = "./internal/test/simulation", "^TestSimulation$"
	return []mutant{
		{
			"seeds find an inbox that does not know what it has seen", "messaging/outbox/inbox.go",
			"	return n == 1, nil\n}\n\n// source", "	return n >= 0, nil\n}\n\n// source", pkg, test,
		},
		{
			"seeds find an acknowledgement before the commit", "messaging/consume.go",
			"if c.autoAck && !c.tell(", "if !c.tell(", pkg, test,
		},
		{
			"seeds find a relay that deletes before the broker has an event", "messaging/outbox/relay.go",
			"sendErr := r.send(ctx, b.msgs)", "sendErr := errors.Join(r.remove(ctx, b.ids), r.send(ctx, b.msgs))", pkg, test,
		},
		{
			"seeds find an order that goes on over a gap", "messaging/outbox/order.go",
			"case seq == o.tail+1 && o.handled == o.tail:", "case seq > o.tail && o.handled == o.tail:", pkg, test,
		},
		{
			"seeds find a step of a saga that is written down after its effect", "saga/step.go",
			"if err = r.updateOne(ctx, tx, w.to(next.position, 0, state)); err != nil {",
			"sqldb.AfterCommit(ctx, func() { _ = r.write(ctx, w.to(next.position, 0, state)) }); if err != nil {", pkg, test,
		},
	}
}
