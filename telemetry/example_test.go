package telemetry_test

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/propagation"

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
	header := propagation.HeaderCarrier{}
	propagation.TraceContext{}.Inject(ctx, header)
	theirs := propagation.TraceContext{}.Extract(context.Background(), header)
	fmt.Println(telemetry.TraceID(theirs) == telemetry.TraceID(ctx))
	// Output: true
}
