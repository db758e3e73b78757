package discovery_test

import (
	"context"
	"crypto/rand"
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
		Open: func(*testing.T) discovery.Registry { return discovery.NewMemory() },
	})
}

func TestZeroMemory(t *testing.T) {
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

func TestStaticURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"static:user-service=127.0.0.1:8081|127.0.0.1:50051,user-service=127.0.0.1:8091,order-service=|[::1]:50052",
		"static:\n  user-service: 127.0.0.1:8081 | 127.0.0.1:50051\n  user-service: 127.0.0.1:8091\n\n",
	} {
		discoverytest.Run(t, discoverytest.Harness{
			Open: func(t *testing.T) discovery.Registry {
				r, err := discovery.Open(t.Context(), url)
				if err != nil {
					t.Fatalf("Open(%q): %v", url, err)
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

func TestOpenMemory(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "memory:"} {
		r, err := discovery.Open(t.Context(), url)
		if _, ok := r.(*discovery.Memory); !ok || err != nil {
			t.Errorf("Open(%q) = %T, %v, want a Memory", url, r, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"memory":                    "expected scheme",
		"memory:x":                  "nothing may follow",
		"static:users":              `"users"`,
		"static:=a:1":               `"=a:1"`,
		"static:users=":             "no address",
		"static:users=localhost":    `"localhost" is not host:port`,
		"static:users=a:1|:2":       `":2" is not host:port`,
		"zookeeper://secret@host/x": `scheme "zookeeper"`,
	} {
		_, err := discovery.Open(t.Context(), url)
		if !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): the error shows the password: %v", url, err)
		}
	}
}

func TestDrivers(t *testing.T) {
	t.Parallel()
	failed := errors.New("no route")
	scheme := strings.ToLower("t" + rand.Text())
	discovery.RegisterDriver(scheme, func(_ context.Context, url string) (discovery.Registry, error) {
		if url == scheme+"://down" {
			return nil, failed
		}
		return discovery.NewMemory(), nil
	})
	if r, err := discovery.Open(t.Context(), scheme+"://up"); r == nil || err != nil {
		t.Errorf("Open(test://up) = %v, %v", r, err)
	}
	if _, err := discovery.Open(t.Context(), scheme+"://down"); !errors.Is(err, failed) {
		t.Errorf("Open(test://down): %v, want the driver's error", err)
	}
	open := func(context.Context, string) (discovery.Registry, error) { return nil, nil }
	for _, scheme := range []string{scheme, "memory", "static", ""} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("RegisterDriver(%q) did not panic", scheme)
				}
			}()
			discovery.RegisterDriver(scheme, open)
		}()
	}
}

func ExampleMemory() {
	registry := discovery.NewMemory()
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

func ExampleOpen() {
	registry, err := discovery.Open(context.Background(), "static:order-service=10.0.0.7:8082|10.0.0.7:50052")
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
