package otlp_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/telemetry"
	_ "github.com/kaptar/kaptar/telemetry/otlp" // a program of package kaptar needs this line alone
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // there is no collector here, so do not wait for one
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t, err := telemetry.New(context.Background(), telemetry.Options{Service: "order-service", Endpoint: "http://localhost:4317", Protocol: protocol})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(protocol, "is linked")
		_ = t.Shutdown(ctx)
	}
	// Output:
	// grpc is linked
	// http/protobuf is linked
}
