package mutants

// sagas: package saga and the shop's checkout.
func sagas() []mutant {
	return []mutant{
		{
			"orders survive kill -9", "saga/runner.go",
			"if due = r.begin(due, more); len(due)", "if due = nil; len(due)", "./shop", "TestSystem/shapes/one_process/kill_-9_of_everything",
		},
		{
			"an interrupted checkout goes on", "saga/store.go",
			"AND due_at <= $3", "AND due_at > $3 + 1000", "./shop/order", "TestRestartAtEveryEdge",
		},
		{
			"an order is not confirmed by a payment of another amount", "shop/order/checkout.go",
			"case resp.GetAmountCents() != o.TotalCents ||", "case resp.GetAmountCents() == 0 ||", "./shop/order", "TestPaymentIsCompared",
		},
		{
			"checkouts that an older version began are finished", "shop/order/store.go",
			"(SELECT id FROM orders WHERE step <> 'done'", "(SELECT id FROM orders WHERE step = 'done'", "./shop/order", "TestOlderVersion",
		},
		{
			"there is no way back after the pivot", "saga/machine.go",
			"a.outcome == refused && i <= p.pivot:", "a.outcome == refused && i <= len(p.steps):", "./saga", "TestNext",
		},
		{
			"the last step that was done is undone first", "saga/machine.go",
			"for i--; i >= 0; i-- {", "for i = 0; i < len(p.steps); i++ {", "./saga", "TestSimulation",
		},
	}
}
