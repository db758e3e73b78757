package natskv_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/kv"
	_ "github.com/kaptar/kaptar/kv/natskv" // nats://
)

func Example() {
	_, err := kv.Open(context.Background(), "nats://app:secret@broker:4222?bucket=my.settings")
	fmt.Println(err)
	// Output: kv: open nats: kv/natskv: kv: invalid url nats://app:xxxxx@broker:4222: parameter bucket=my.settings: want letters, digits, - and _
}
