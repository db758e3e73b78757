package telemetry_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel"

	_ "github.com/kaptar/kaptar/telemetry/otlp"
)

// The SDK hands errors that nobody takes to a global handler. No test may
// bring it that far.
func TestMain(m *testing.M) {
	var handled atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		handled.Add(1)
		fmt.Fprintln(os.Stderr, "global error handler got:", err)
	}))
	code := m.Run()
	if handled.Load() > 0 {
		code = 1
	}
	os.Exit(code)
}
