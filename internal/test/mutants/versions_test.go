package mutants

// versions: two of one service at a time.
func versions() []mutant {
	return []mutant{
		{
			"a binary that runs beside has the version of its key", "internal/proc/version.go",
			"case says != version:", "case says == \"\":", "./local", "TestSplitBesideRefused",
		},
		{
			"what runs beside ends with its key", "local/beside.go",
			"			old.stop()\n", "", "./local", "TestSplitBeside",
		},
		{
			"an old version waits for what is about to be recorded", "sqldb/migratelock.go",
			"err == nil && !l.unrecorded {\n\t\treturn nil", "err != nil || !l.unrecorded {\n\t\treturn err", "./sqldb", "TestMigrateAboutToBeRecorded",
		},
		{
			"an old version starts on the database of a release that it can live with", "sqldb/migratelock.go",
			"record.needs > 0 && !lives)", "!lives)", "./sqldb", "TestMigrateVersions",
		},
		{
			"an old version does not start where it would break", "sqldb/migratelock.go",
			"(!recorded || record.needs > 0 && !lives)", "(!recorded || false && !lives)", "./sqldb", "TestMigrateVersions",
		},
		{
			"a migration that breaks a running version is refused", "sqldb/migratelock.go",
			"if used && len(pending[v].breaks) > 0 {", "if used && false {", "./sqldb", "TestMigrateBreaking",
		},
		{
			"what a file creates is new only if it was not there", "sqldb/breaking.go",
			`unless == "" && `, "", "./sqldb", "TestBreaking",
		},
		{
			"what is in a string is no statement, and what is behind it is one", "sqldb/lex.go",
			`[eE]'(?:[^'\\]|\\.|'')*'|`, "", "./sqldb", "TestBreaking|TestStatements",
		},
		{
			"of users each version has its share", "transport/choose.go",
			"return s.weight / -math.Log(u)", "return s.weight * math.Sqrt(u)", "./transport", "TestSticky",
		},
		{
			"a retry keeps the version of its call", "transport/choose.go",
			"if c.in != nil && slices.ContainsFunc(", "if c.in == nil && slices.ContainsFunc(", "./transport", "TestRepeatsKeepTheVersion",
		},
		{
			"a question to one instance goes to no other", "transport/principal.go",
			`c.alone = c.wants != nil && c.wants.Instance != ""; c.alone`, "c.alone = false; c.alone", "./transport", "TestWithInstance",
		},
		{
			"versions that are wished for are not told outside", "transport/principal.go",
			"	if c.external {\n		return \"\", \"\"", "	if false {\n		return \"\", \"\"", "./transport", "TestVersionsTravel",
		},
		{
			"nobody outside chooses versions but testers", "gateway/gateway.go",
			"&o.TraceFrom, &o.VersionFrom}", "&o.TraceFrom}", "./gateway", "TestTesters",
		},
		{
			"versions make up no series", "transport/versions.go",
			"if i < 0 && len(m.versions) >= mostVersions {", "if false {", "./transport", "TestVersionsMakeUpNoSeries",
		},
		{
			"a version whose turn is over leaves its group", "messaging/versions.go",
			"if share.none(ctx) {", "if false {", "./messaging", "TestEventsOfOneVersion/NATS",
		},
	}
}
