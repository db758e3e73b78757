package local

// SourcesOf is what the command config shows, and BesideOf what other commands use.
var (
	SourcesOf = (*Options).sources
	BesideOf  = (*Options).beside
)
