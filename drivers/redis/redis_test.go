package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/redis"
)

var _ cache.Session = redis.Session(nil) // the same interface, as neither package imports the other

func ExampleSession() {
	set := new(drivers.Set)
	defer set.Close(context.Background())
	backend, err := set.Open(context.Background(), "rediss://app:p%40ss@h:7000/2") // connects to nothing yet
	if err != nil {
		fmt.Println(err)
		return
	}
	var client *goredis.Client // for what caches do not do
	fmt.Println(backend.(interface{ As(any) bool }).As(&client), client.Options().Addr, client.Options().DB)
	// Output: true h:7000 2
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for url, shown := range map[string]string{
		"redis://app:hun%ter2@h":     `"redis://app:xxxxx@h": no URL`,
		"redis://app:hunter2@h:port": `"redis://app:xxxxx@h:port": no URL`,
		"redis://:hunter2":           `"redis": no URL`,
		"redis://app:hunter2@h/two":  `"redis://app:xxxxx@h/two": `,
		"redis://h?password=hunter2": `"redis://h": `,
	} {
		_, err := new(drivers.Set).Open(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), "url "+shown) || !strings.Contains(err.Error(), "expected redis://") || strings.Contains(err.Error(), "hun") {
			t.Errorf("%s: got %v, want an error that shows %s, no password, and what is expected", url, err, shown)
		}
	}
}
