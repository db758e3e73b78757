// Package mutants breaks the promises of the toolkit one at a time and sees that tests notice: make
// mutants. Each mutant is one change of one line, built as an overlay, so the tree is never
// touched. It has only tests.
package mutants
