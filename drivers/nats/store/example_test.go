package natskv_test

import (
	"context"
	"fmt"

	_ "github.com/kaptar/kaptar/drivers/nats/store" // nats://
	"github.com/kaptar/kaptar/kv"
)

func Example() {
	_, err := kv.Open(context.Background(), "nats://app:secret@broker:4222?bucket=my.settings")
	fmt.Println(err)
	// Output: kv: open nats: drivers/nats/store: kv: invalid url nats://app:xxxxx@broker:4222: parameter bucket=my.settings: want letters, digits, - and _
}
