package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	discoverytest.Run(t, discoverytest.Harness{
		Open: func(*testing.T) discovery.Registry { return new(discovery.Memory) },
	})
}

func TestStatic(t *testing.T) {
	t.Parallel()
	list := map[string][]discovery.Instance{
		"user-service":  {{HTTP: "h2:1"}, {GRPC: "h1:2", Tags: []string{"canary"}}},
		"order-service": {{ID: "o", HTTP: "h3:1"}},
	}
	discoverytest.Run(t, discoverytest.Harness{
		Open:  func(*testing.T) discovery.Registry { return discovery.NewStatic(list) },
		Fixed: true,
		Listed: []discovery.Instance{
			{ID: "user-service@h1:2", Service: "user-service", GRPC: "h1:2", Tags: []string{"canary"}},
			{ID: "user-service@h2:1", Service: "user-service", HTTP: "h2:1"},
		},
	})
}

func TestStaticTable(t *testing.T) {
	t.Parallel()
	for _, table := range []string{
		"user-service=127.0.0.1:8081|127.0.0.1:50051,user-service=127.0.0.1:8091,order-service=|[::1]:50052",
		"\n  user-service: 127.0.0.1:8081 | 127.0.0.1:50051\n  user-service: 127.0.0.1:8091\n\n",
	} {
		discoverytest.Run(t, discoverytest.Harness{
			Open: func(t *testing.T) discovery.Registry {
				r, err := discovery.ParseStatic(table)
				if err != nil {
					t.Fatalf("ParseStatic(%q): %v", table, err)
				}
				return r
			},
			Fixed: true,
			Listed: []discovery.Instance{
				{ID: "user-service@127.0.0.1:8081", Service: "user-service", HTTP: "127.0.0.1:8081", GRPC: "127.0.0.1:50051"},
				{ID: "user-service@127.0.0.1:8091", Service: "user-service", HTTP: "127.0.0.1:8091"},
			},
		})
	}
}

func TestStaticTableErrors(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]string{
		"users":           `"users"`,
		"=a:1":            `"=a:1"`,
		"users=":          "no address",
		"users=localhost": `"localhost" is not host:port`,
		"users=a:1|:2":    `":2" is not host:port`,
	} {
		if _, err := discovery.ParseStatic(table); !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseStatic(%q): %v, want ErrInvalid with %q", table, err, want)
		}
	}
}

func ExampleMemory() {
	registry := new(discovery.Memory)
	ctx, cancel := context.WithCancel(context.Background())
	_ = registry.Register(ctx, discovery.Instance{ID: "order-1", Service: "order-service", HTTP: "10.0.0.7:8082"})

	_ = registry.Watch(ctx, "order-service", func(list []discovery.Instance) {
		for _, in := range list {
			fmt.Println(in.ID, in.HTTP)
		}
		cancel()
	})
	// Output: order-1 10.0.0.7:8082
}

func ExampleParseStatic() {
	registry, err := discovery.ParseStatic("order-service=10.0.0.7:8082|10.0.0.7:50052")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	_ = registry.Watch(ctx, "order-service", func(list []discovery.Instance) {
		fmt.Println(list[0].HTTP, list[0].GRPC)
		cancel()
	})
	// Output: 10.0.0.7:8082 10.0.0.7:50052
}
