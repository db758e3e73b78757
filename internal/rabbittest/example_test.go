//go:build servers

package rabbittest_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/rabbittest"
)

func ExampleURL() {
	_ = func(t *testing.T) {
		url := rabbittest.URL(t) // amqp://…, a virtual host of this test's own
		_ = url
	}
	// Output:
}
