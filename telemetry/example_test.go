package telemetry_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/kaptar/kaptar/telemetry"
)

func Example() {
	ctx := context.Background()
	t, err := telemetry.New(ctx, telemetry.Options{
		Service: "order-service",
		Log:     telemetry.LogOptions{Output: os.Stdout, Format: "text"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = t.Shutdown(ctx) }()

	ctx, span := t.Tracer().Start(ctx, "place order")
	defer span.End()

	// What the next service needs to go on with the same trace:
	header := http.Header{}
	telemetry.Inject(ctx, header.Set)
	theirs := telemetry.Extract(context.Background(), header.Get)
	fmt.Println(telemetry.TraceID(theirs) == telemetry.TraceID(ctx))
	// Output: true
}
