package natsstore_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/drivers/nats/store"
)

func Example() {
	_, err := natsstore.Open(context.Background(), "nats://app:secret@broker:4222?bucket=my.settings", nil)
	fmt.Println(err)
	// Output: drivers/nats/store: kv: invalid url nats://app:xxxxx@broker:4222: parameter bucket=my.settings: want letters, digits, - and _
}
