package mutants

// crashes: what the crash suite finds, and that it does.
func crashes() []mutant {
	const check, pkg = "internal/test/crash/check.go", "./internal/test/crash"
	return []mutant{
		{
			"the embedded broker syncs what it acknowledges", "local/nats.go",
			"SyncAlways: true,", "SyncAlways: false,", pkg, "^TestPowerCut$/^local",
		},
		{
			"a group whose file is damaged says what to do", "drivers/nats/subscribe.go",
			"ok && api.ErrorCode == consumerNotMade {", "ok && api.ErrorCode == 0 {", "./drivers/nats", "TestDamagedGroup",
		},
		{
			"a group of a stream that is made again gets all of it", "drivers/nats/subscribe.go",
			"Delivered.Consumer > 0 &&", "Delivered.Consumer > 1<<40 &&", "./drivers/nats", "TestLostStreamFoundConsumers",
		},
		{
			"each commit of SQLite is synced", "drivers/sqlite/sqlite.go",
			"_synchronous=FULL", "_synchronous=NORMAL", pkg, "^TestPowerCut$/^SQLite",
		},
		{
			"a row of the outbox stays until the broker has its event", "messaging/outbox/relay.go",
			"	if sendErr != nil {\n		sent = 0", "	if sendErr != nil {\n		sent += 0", pkg, "^TestCrash$",
		},
		{
			"an event that is nowhere is lost", check,
			"case applied[e.ID]+dead[e.ID] == 0:", "case applied[e.ID]+dead[e.ID] < 0:", pkg, "TestCheckers",
		},
		{
			"a dead letter of what works is a loss", check,
			"case !e.Poison && dead[e.ID] > 0:", "case false && dead[e.ID] > 0:", pkg, "TestCheckers",
		},
		{
			"an effect without a commit is a ghost", check,
			"range slices.Concat(r.Applied, r.Dead) {", "range slices.Concat(r.Dead) {", pkg, "TestCheckers",
		},
		{
			"an effect that happens again is one too many", check,
			"if n+dead[id] > 1 {", "if n+dead[id] > 2 {", pkg, "TestCheckers",
		},
		{
			"a gap breaks the order", check,
			"if e.Seq != last[at]+1 {", "if e.Seq <= last[at] {", pkg, "TestCheckers",
		},
		{
			"a compensated saga has moved nothing", check,
			"if saga.Completed {", "if true || saga.Completed {", pkg, "TestCheckers",
		},
		{
			"docs/reliability.md names tests that there are", "internal/test/repotest/reliability_test.go",
			"tests[path.Join(s.dir(), n.Name.Name)] = n.Recv == nil", "tests[path.Join(s.dir(), n.Name.Name)] = true\n\t\t\t\ttests[path.Join(path.Dir(s.dir()), n.Name.Name)] = true", "./internal/test/repotest", "TestReliability",
		},
	}
}
