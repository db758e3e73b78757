package mutants

// groups: order over several members, positions, and what a store survives.
func groups() []mutant {
	return []mutant{
		{
			"what a dead member had comes before later messages of its key", "drivers/nats/ordered.go",
			"		m.b.takeOver(ctx, m.info.stream, name)\n", "", "./drivers/nats", "TestConformance$/^OrderedMemberDies$",
		},
		{
			"a partition moves when nothing of it is in flight", "drivers/nats/ordered.go",
			"puller.drain(min(drainTime, m.b.set.ackWait))", "_ = drainTime", "./drivers/nats", "TestConformance$/^OrderedShares$",
		},
		{
			"a member that is gone is struck off", "drivers/nats/ordered.go",
			"		r.strike(other)\n", "		return\n", "./drivers/nats", "TestConformance$/^OrderedMemberDies$",
		},
		{
			"members have as much as each other", "internal/partition/partition.go",
			"for range Count / (m + 1) {", "for range Count / (m + 2) {", "./internal/partition", "",
		},
		{
			"in memory too a partition waits for its last owner", "drivers/memory/topic.go",
			"if g.owners[p] != m && !held[p] {", "if g.owners[p] != m {", "./drivers/memory", "TestConformance$/^OrderedShares$",
		},
		{
			"a group that becomes ordered goes on where it was", "drivers/nats/group.go",
			"config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, now.AckFloor.Stream+1",
			"_ = now.AckFloor.Stream", "./drivers/nats", "TestOrderedAndBack",
		},
		{
			"members of both kinds are not in one group", "drivers/nats/group.go",
			"if now.NumWaiting > 0 {", "if now.NumWaiting > 1000 {", "./drivers/nats", "TestOrderedAndBack",
		},
		{
			"Kafka takes a member's session timeout, however short its ack wait", "drivers/kafka/options.go",
			"max(o.AckWait, 6*time.Second)", "o.AckWait", "./drivers/kafka", "TestSessionTimeout",
		},
		{
			"a killed Kafka member loses its partitions, however long its ack wait", "drivers/kafka/options.go",
			"5*time.Minute)", "5*time.Hour)", "./drivers/kafka", "TestSessionTimeout",
		},
		{
			"a Consul error blames the URL and not another setting", "drivers/consul/client.go",
			"is the consul:// URL right?", "is DISCOVERY_URL right?", "./drivers/consul", "TestUnreachable",
		},
		{
			"a Kafka member stays until it has finished", "drivers/kafka/member.go",
			"	partitions, busy := m.finishUp()\n", "	partitions, busy := m.finishUp()\n	busy = false\n", "./drivers/kafka", "TestConformance$/^OrderedShares$",
		},
		{
			"a group from now that lost its state misses nothing", "drivers/nats/subscribe.go",
			"if config.DeliverPolicy != jetstream.DeliverNewPolicy {", "if true {", "./local", "TestDamagedGroup",
		},
		{
			"a disk that was full is no reason to stay away", "local/tend.go",
			`strings.Contains(health.Error, "write error")`, "false", "./local", "TestFullDisk",
		},
		{
			"the driver tells that a server stores nothing", "drivers/nats/publish.go",
			"b.working.Note(topic, err)", "_ = topic", "./local", "TestFullDisk",
		},
		{
			"lag counts what is in flight", "drivers/nats/group.go",
			"+ int64(now.NumAckPending)", "", "./drivers/nats", "TestConformance$/^Lag$",
		},
		{
			"a partition of Kafka moves when its old owner has finished", "drivers/kafka/rebalance.go",
			"	if !leaving {\n		m.drain", "	if leaving {\n		m.drain", "./drivers/kafka", "TestDrain",
		},
		{
			"an exchange that was deleted a moment ago has groups", "drivers/rabbitmq/deleted.go",
			"time.Since(at) > 3*l.b.guardEvery()", "time.Since(at) >= 0", "./drivers/rabbitmq", "TestDeletedTopic",
		},
	}
}
