package mutants

// pipeline: from a commit to production.
func pipeline() []mutant {
	return []mutant{
		{
			"a release without a section in the changelog is not made", "tools/release/notes.go",
			`ok && strings.Contains(version, "-") {`, "ok {", "./tools/release", "TestNotes",
		},
		{
			"a second section of a version is not lost", "tools/release/notes.go",
			"if _, twice := sections[name]; twice {", "if _, twice := sections[name]; false && twice {", "./tools/release", "TestNotes",
		},
		{
			"a folder with other files is not emptied", "tools/release/main.go",
			`n != "NOTES.md" && !strings`, `n == "NOTES.md" && !strings`, "./tools/release", "TestRefusals",
		},
		{
			"a token of a workflow can do what its job needs and no more", "internal/test/repotest/workflows_test.go",
			"len(w.Permissions) > 0 {", "len(w.Permissions) > 9 {", "./internal/test/repotest", "TestWorkflows",
		},
		{
			"brokers that are fenced are waited for", "drivers/kafka/topic.go",
			`"fenced") && steady`, `"fenced") && false && steady`, "./drivers/kafka", "TestFencedBrokers",
		},
	}
}
