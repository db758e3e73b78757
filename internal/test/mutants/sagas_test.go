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
		{
			"a database that does not answer holds up a stop for one timeout, not for one per saga", "saga/store.go",
			"len(moves) > 1 && !errors.Is(err, context.DeadlineExceeded)", "len(moves) > 1", "./saga", "TestWriteTimeout",
		},
		{
			"a step is tried again when the server said", "saga/machine.go",
			"if wish, ok := errors.AsType[*later](err); ok {", "if wish, ok := errors.AsType[*later](err); ok && false {", "./saga", "TestWaits",
		},
		{
			"an answer that comes when the saga has moved on changes nothing", "saga/store.go",
			"= m.id AND kaptar_sagas.revision = m.revision", "= m.id", "./saga", "TestLateAnswers",
		},
		{
			"a saga is not begun as it was before its last steps", "saga/runner.go",
			"return r.running[w.id] || r.ended[w.id] })", "return r.running[w.id] })", "./saga", "TestStaleLook",
		},
		{
			"a function that ignores its context is told to the log", "saga/step.go",
			"AfterFunc(t.timeout+lateAfter, func", "AfterFunc(t.timeout+24*time.Hour, func", "./saga", "TestLateStep",
		},
		{
			"an effect that takes longer than its timeout has failed", "saga/step.go",
			"if err = ctx.Err(); err != nil { // they", "if err = nil; err != nil { // they", "./saga", "TestLateCommit/sqlite",
		},
		{
			"an effect is in the transaction that writes its step down", "saga/step.go",
			"if err = r.updateOne(ctx, tx, w.to(next.position, 0, state)); err", "if err = r.write(context.WithoutCancel(context.Background()), w.to(next.position, 0, state)); err", "./saga", "TestCrashAtEveryEdge/postgres",
		},
	}
}
