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
			"an old version starts on the database of a release that it can live with", "sqldb/migratelock.go",
			"record.needs > 0 && !lives)", "!lives)", "./sqldb", "TestMigrateVersions",
		},
		{
			"an old version does not start where it would break", "sqldb/migratelock.go",
			"(!recorded || record.needs > 0 && !lives)", "(!recorded || false && !lives)", "./sqldb", "TestMigrateVersions",
		},
		{
			"a migration that breaks a running version is refused", "sqldb/migratelock.go",
			"if len(pending[v].breaks) > 0 {", "if false {", "./sqldb", "TestMigrateBreaking",
		},
		{
			"what a file creates is new only if it was not there", "sqldb/breaking.go",
			`unless == "" && `, "", "./sqldb", "TestBreaking",
		},
		{
			"what is in a string is no statement, and what is behind it is one", "sqldb/lex.go",
			`[eE]'(?:[^'\\]|\\.|'')*'|`, "", "./sqldb", "TestBreaking|TestStatements",
		},
	}
}
