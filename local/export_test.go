package local

// SourcesOf is what the command config shows.
var SourcesOf = (*Options).sources
