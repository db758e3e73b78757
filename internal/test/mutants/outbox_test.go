package mutants

// outboxes: the corners of messaging/outbox's relay, and package sqldb's signals and leases.
func outboxes() []mutant {
	return []mutant{
		{
			"a pragma is prepared anew", "drivers/sqlite/cache.go",
			`	case "INSERT",`, `	case "PRAGMA", "INSERT",`, "./drivers/sqlite", "TestCachePragma",
		},
		{
			"the bound of the outbox waits for who may still commit", "messaging/outbox/bound.go",
			"len(writers) == 0", "true", "./messaging/outbox", "TestBoundKeepsLateCommits",
		},
		{
			"the bound of the outbox waits for a read after their commits", "messaging/outbox/bound.go",
			"b.clear && (last >= b.next || len(ids) < batchSize)", "b.noted && b.next > 0", "./messaging/outbox", "TestBoundWaitsForAnotherRead|TestBoundKeepsLateCommits",
		},
		{
			"the relay does not read what it has deleted", "messaging/outbox/bound.go",
			"		return b.id\n", "		return 0\n", "./messaging/outbox", "TestBacklogCostsTheSameToItsEnd",
		},
		{
			"the relay does not read the whole table for a batch", "messaging/outbox/relay.go",
			"if err := l.prepare(ctx); err != nil {", "if err := l.prepare(nil); ctx == nil {", "./messaging/outbox", "TestBacklogCostsTheSameToItsEnd",
		},
		{
			"the relay asks whether it leads before it sends", "messaging/outbox/relay.go",
			"err = t.lease.Check(ctx)", "_ = t.lease.Check", "./messaging/outbox", "TestRelayAsksBeforeItSends",
		},
		{
			"the events of each broker are sent apart", "messaging/settings.go",
			"of[url] = append(of[url], topic)", "of[url] = nil", "./messaging", "TestBrokersAreApart",
		},
		{
			"an event for one broker is not passed over while another has later ones", "messaging/outbox/relay.go",
			"dialect == sqldb.SQLite\n", "true\n", "./messaging/outbox", "TestBoundOfEachBroker",
		},
		{
			"the relay does not read the backlog of another broker", "messaging/outbox/relay.go",
			"Scan(&b.last)", "Scan(new(int64))", "./messaging/outbox", "TestBacklogOfAnotherBroker",
		},
		{
			"a service starts while its broker is away", "messaging/bus.go",
			"err != nil && isAway(br, err) {", "err != nil && b == nil {", "./messaging", "TestBrokerThatComesLater/rabbitmq",
		},
		{
			"a wrong password ends the start", "drivers/rabbitmq/link.go",
			"err != nil && !steady.Unreachable(err) {", "ctx == nil {", "./messaging", "TestSetupErrorsSayWhatToDo/wrong_password",
		},
		{
			"a command asks for no address", "run.go",
			"if err == nil && opts.loaded == nil {", "if err != nil {", ".", "TestCallApps",
		},
		{
			"what is sent again keeps its order", "messaging/outbox/sent.go",
			"WHERE id = ANY($2) ORDER BY id`", "WHERE id = ANY($2) ORDER BY id DESC`", "./messaging/outbox", "TestKeepAndResend",
		},
		{
			"other processes are woken", "sqldb/signal.go",
			"		s.signals.tell(s.name)\n", "", "./sqldb", "TestSignalAcrossProcesses",
		},
		{
			"a process sends ten NOTIFYs a second at most", "sqldb/signal.go",
			"if !steady.Sleep(h.ctx, notifyEvery) {", "if h.ctx.Err() != nil {", "./sqldb", "TestSignalIsDebounced",
		},
		{
			"a lease that is given up leaves the others of its session", "sqldb/lease.go",
			"if s.held > 0 {", "if s.held < 0 {", "./sqldb", "TestLeasesShareASession",
		},
		{
			"a schedule does not drift with its runs", "internal/schedule/schedule.go",
			"		last = at\n", "		last = r.Now()\n", "./internal/schedule", "TestEveryDoesNotDrift",
		},
		{
			"a clock that goes back does not stop a schedule", "internal/schedule/schedule.go",
			"last.Sub(now) > job.Next(last).Sub(last)", "false", "./internal/schedule", "TestClockIsSet",
		},
		{
			"a run that was broken off is begun again", "internal/schedule/schedule.go",
			"if failed != nil && ctx.Err() != nil {", "if failed != nil && ctx == nil {", "./internal/schedule", "TestStopWaitsForTheRun",
		},
		{
			"a time that the clock skips in spring is due after the gap", "internal/schedule/cron.go",
			"local.Before(end)", "local.After(end)", "./internal/schedule", "TestCron",
		},
		{
			"a time that comes twice in autumn is due once", "internal/schedule/cron.go",
			"return c.everyHour || delta >= 0 || t.Sub(start) >= -delta", "return t.Sub(start) >= 0 || delta >= 0", "./internal/schedule", "TestCron",
		},
		{
			"a relay is woken in its process", "messaging/outbox/relay.go",
			"func (r *Relay) Wake() { r.signal.Notify() }", "func (r *Relay) Wake() {}", "./messaging/outbox", "TestRelayWakes",
		},
		{
			"a run is over whatever its error says", "internal/schedule/schedule.go",
			"text = sqldb.Text(failed.Error())", "text = failed.Error()", "./internal/schedule", "TestErrorThatIsNoText/postgres",
		},
		{
			"a migration that fails has its line", "sqldb/migrate.go",
			"goose.WithVerbose(true)", "goose.WithVerbose(false)", "./sqldb", "TestMigrateBrokenLine/sqlite",
		},
		{
			"a metric that is not collected is told to the log", "telemetry/counters.go",
			"if r, ok := registry.(*Registry); ok && err != nil {", "if r, ok := registry.(*Registry); ok && err != nil && r == nil {", "./telemetry", "TestRegister",
		},
	}
}
