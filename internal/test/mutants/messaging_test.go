package mutants

// consumers: what a group does with its events.
func consumers() []mutant {
	const model = "TestInboxModel/sqlite"
	return []mutant{
		{
			"what could not be set aside is not acknowledged", "messaging/failure.go",
			"case failure != nil:\n\t\tlog.Error", "case failure != nil && w.tries < 0:\n\t\tlog.Error", "./messaging", "TestScenario13",
		},
		{
			"an event that was set aside is tried again until the retries are used up", "messaging/retrier.go",
			"letter.Retries+1 >= c.opts.Retries", "letter.Retries >= 0", "./messaging", "TestScenario12",
		},
		{
			"one bad key does not stop the handlers of the others", "messaging/circuit.go",
			"&& len(keys) == circuitKeys", "&& len(keys) > 0", "./messaging", "TestCircuitOfOneKey",
		},
		{
			"who hears that others lead tells the end of an outage", "internal/lead/lead.go",
			"		case err == nil:\n			well()\n", "", "./internal/lead", "TestOutageOfAFollower",
		},
		{
			"a leader that the database has answered is soon back", "internal/lead/lead.go",
			"if answered.Load() {", "if false {", "./internal/lead", "TestRun",
		},
		{
			"retries wait for the circuit", "messaging/retrier.go",
			"after = max(after, c.circuit.wait())", "_ = c", "./messaging", "TestCircuitOpenedByRetries",
		},
		{
			"an outage makes no dead letters", "messaging/circuit.go",
			"failures >= circuitFailures &&", "failures > circuitTries &&", "./messaging", "TestCircuit",
		},
		{
			"a failing key leaves room for others", "messaging/consume.go",
			"maxWaiting = 32", "maxWaiting = 1 << 20", "./messaging", "TestPoisonLeavesRoom",
		},
		{
			"later events of a failed one's key wait for it", "messaging/outbox/order.go",
			"case seq == o.tail+1 && o.handled == o.tail:", "case seq == o.tail+1:", "./messaging/outbox", model,
		},
		{
			"an event waits for missing ones of its key", "messaging/outbox/order.go",
			"case held < GapWait:", "case held < 0:", "./messaging", "TestGap",
		},
		{
			"the inbox lets the next number of a key alone go first", "messaging/outbox/order.go",
			"AND handled = $7 AND tail = $7`", "AND handled <= $7 AND tail <= $7`", "./messaging/outbox", model,
		},
		{
			"a number that comes again with another event is no duplicate", "messaging/outbox/order.go",
			"case seq == o.tail && m.ID != o.msgid,", "case false,", "./messaging", "TestPublisherFromABackup",
		},
		{
			"what is set aside is taken by one", "messaging/outbox/retry.go",
			"if err == nil && n != 1 {", "if err == nil && n > 1 {", "./messaging/outbox", "TestTakeDeadLetterOnce/sqlite",
		},
		{
			"the numbers of a key have no gap", "messaging/outbox/outbox.go",
			"seq = kaptar_sequences.seq + 1", "seq = kaptar_sequences.seq + 2", "./messaging/outbox", "TestAddOrdered/sqlite",
		},
		{
			"a stop does not wait for the next try", "messaging/consume.go",
			"if !steady.Sleep(stop, min(d, look)) {", "if !steady.Sleep(context.Background(), min(d, look)) {", "./messaging", "TestStopInAPause",
		},
		{
			"what the broker has refused is replayed to the broker", "messaging/bus.go",
			"DeadLetter{Kind: outbox.Publish, ", "DeadLetter{", "./messaging", "TestEventThatTheBrokerRefusesHoldsUpNothing",
		},
		{
			"at most once: what is not acknowledged is not handled", "messaging/consume.go",
			"if c.autoAck && !c.tell(ctx, \"ack\", w.Delivery, w.Ack) {", "if c.autoAck && !c.tell(ctx, \"ack\", w.Delivery, w.Ack) && w.tries < 0 {", "./messaging", "TestAutoAckNotAcknowledged",
		},
		{
			"a retry that fails while the circuit is open does not count", "messaging/retrier.go",
			"return nil // the try does not count", "_ = next", "./messaging", "TestCircuitOpenedByRetries",
		},
	}
}
