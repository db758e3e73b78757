// Package repotest keeps the walls and budgets of the repository. It has only tests: over the
// directions of import (imports_test.go), the Go sources (walls_test.go) and the other files
// (files_test.go). Each wall is a function from what it reads to the offences that it finds, and
// each is tested twice: on the repository, where it must find none, and on a small offender, where
// it must find one.
package repotest
