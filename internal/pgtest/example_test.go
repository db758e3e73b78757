//go:build unix

package pgtest_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/pgtest"
)

func ExampleURL() {
	_ = func(t *testing.T) {
		url := pgtest.URL(t) // postgres://…, a database of this test's own
		_ = url
	}
	// Output:
}
