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
	}
}
