package dns_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/dns"
)

func Example() {
	// "localhost" is a service that every machine knows.
	registry, err := dns.Open("dns:///?srv=none&http=8080&grpc=50051")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	_ = registry.Watch(ctx, "localhost", func(list []discovery.Instance) {
		for _, in := range list {
			fmt.Println(in.ID, in.HTTP, in.GRPC)
		}
		cancel()
	})
	// Output: localhost@127.0.0.1:8080 127.0.0.1:8080 127.0.0.1:50051
}
