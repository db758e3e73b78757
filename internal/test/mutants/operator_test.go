package mutants

// operators: what somebody does about events that were set aside, and about groups.
func operators() []mutant {
	return []mutant{
		{
			"many who list topics at once ask the broker once", "messaging/events.go",
			"time.Since(b.asked) < flowsFor {", "time.Since(b.asked) < 0 {", "./messaging", "TestEventsAreAskedTogether",
		},
		{
			"a command does not make the database that it cannot find", "internal/operate/operate.go",
			"call.OpenDB = openExisting", "call.OpenDB = nil", "./messaging", "TestWrongCommandLines",
		},
		{
			"a problem names the path that the client asked for", "server/problem.go",
			"cmp.Or(p.Instance, asked.Path)", "cmp.Or(p.Instance, asked.Fragment)", "./messaging", "TestAPI",
		},
		{
			"a schedule of fifty years ago does not count them all", "internal/schedule/schedule.go",
			"old := now.Sub(last) - counted; old > 0 {", "old := now.Sub(last) - counted; old < 0 {", "./internal/schedule", "TestMissedRuns",
		},
		{
			"a replay keeps within its rate", "messaging/operate.go",
			"time.Duration(before)*time.Second/time.Duration(rate)", "time.Duration(before)/time.Duration(rate)", "./messaging", "TestReplayRate",
		},
		{
			"what another operator has replayed meanwhile is not dropped", "messaging/operate.go",
			"			case err == nil && state != \"\" && d.State != state:", "			case false:", "./messaging", "TestTwoOperators",
		},
		{
			"a group does not begin again in the future", "messaging/resets.go",
			"err == nil && to.After(now) {", "err != nil {", "./messaging", "TestResetRefused",
		},
		{
			"a store that does not answer is told", "rollout/store.go",
			"context.WithTimeout(ctx, openTime)", "context.WithCancel(ctx)", "./rollout", "TestStoreAway",
		},
		{
			"commands run where one service runs", "command.go",
			"opts.load(services[:1])", "opts.load(services)", "./rollout", "TestNoStore",
		},
		{
			"commands read the settings of services", "rollout/command.go",
			"settings.SettingsURL.Reveal()", `""`, "./rollout", "TestNoStore",
		},
		{
			"releases of a program of one machine are in its broker", "local/local.go",
			"o.NATSListen, o.Split = u.Host, true", "o.NATSListen = u.Host", "./local", "TestSplitBeside",
		},
		{
			"a replay that fails again is one line", "messaging/replay.go",
			`reason, _, _ := strings.Cut(d.Reason, "\n")`, `reason, _, _ := strings.Cut(d.Reason, "\x00")`, "./messaging", "TestReplayFailsAgain",
		},
		{
			"all calls never go to a version that no instance has", "rollout/command.go",
			"versions[version]+versions[\"\"] == 0 {", "versions[version]+versions[\"\"] < 0 {", "./rollout", "TestCommand",
		},
		{
			"references to topics of any name lead somewhere", "messaging/schema/asyncapi.go",
			"channel := \"#/channels/\" + pointer(u.Topic)", "channel := \"#/channels/\" + u.Topic", "./messaging/schema", "TestAsyncAPI",
		},
		{
			"an operator's request that is too late is no error of the service", "messaging/api.go",
			"	case ctx.Err() != nil:\n		p =", "	case false:\n		p =", "./messaging", "TestAPI",
		},
		{
			"a change by hand is kept with who and why", "messaging/operate.go",
			"err = kept.of(&d).add(ctx, tx)", "_ = kept", "./messaging", "TestDeadLettersCommand",
		},
		{
			"an edit leaves an event its identity", "messaging/outbox/edit.go",
			"[]string{driver.HeaderID, driver.HeaderSource, driver.HeaderSequence} {", "[]string{driver.HeaderSource} {", "./messaging", "TestWrongCommandLines",
		},
		{
			"an edit to what the subscription cannot read is refused", "messaging/operate.go",
			"check := o.checkOf(d); check != nil {", "check := o.checkOf(d); check != nil && data == nil {", "./messaging", "TestWrongCommandLines",
		},
		{
			"all without a filter has to be confirmed", "messaging/parameters.go",
			"case s.All && !filtered && !s.Yes:", "case s.All && !filtered && s.Yes:", "./messaging", "TestWrongCommandLines",
		},
		{
			"a group that begins again has another inbox", "messaging/resets.go",
			"Group: group.Inbox(), Ordered: c.ordered,", "Group: group.Name, Ordered: c.ordered,", "./messaging", "TestReset/sqlite_and_nats,_ordered_false",
		},
		{
			"what is set aside stays so through a reset", "messaging/resets.go",
			"if group.Generation > 0 {", "if group.Generation > 1<<40 {", "./messaging", "TestResetKeepsWhatIsSetAside",
		},
		{
			"the API keeps who asked, not who the body says", "messaging/api.go",
			"name != \"\" && op.by != nil {", "name != \"\" && op.by != nil && op.by.Who == \"\" {", "./messaging", "TestAPI",
		},
		{
			"a command asks no registry", "setup.go",
			"if !s.offline {", "if true {", ".", "TestCallApps",
		},
		{
			"a parameter of the API stands once", "messaging/api.go",
			"case len(all) != 1:", "case len(all) < 1:", "./messaging", "TestAPI",
		},
		{
			"the next page is of one service", "messaging/parameters.go",
			"p.from != 0 && len(services) != 1", "p.from < 0 && len(services) != 1", "./messaging", "TestWrongCommandLines",
		},
		{
			"a service that keeps no events is passed over only if it is not named", "internal/operate/operate.go",
			"errors.Is(err, ErrNothing) && len(services) == 0", "errors.Is(err, ErrNothing)", "./messaging", "TestWrongCommandLines",
		},
		{
			"a command line is checked before anything is opened", "internal/operate/operate.go",
			"		return op.Check()\n", "		return nil\n", "./messaging", "TestWrongCommandLines",
		},
		{
			"an argument too few is a wrong command line", "internal/cli/cli.go",
			"len(args) < least ||", "", "./internal/cli", "TestRun",
		},
		{
			"a command says nothing of a slow Setup", "setup.go",
			"		late = nil\n", "		_ = late\n", ".", "TestCallApps",
		},
	}
}
