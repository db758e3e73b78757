package rabbitdriver_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/messaging/driver"
	_ "github.com/kaptar/kaptar/messaging/rabbitdriver" // for the schemes amqp and amqps
)

func Example() {
	b, err := driver.Open(context.Background(), "amqp://shop:secret@127.0.0.1:1/shop?partitions=4")
	if err != nil { // nobody listens on that port
		fmt.Println(err)
		return
	}
	defer b.Close(context.Background())
	// Output: rabbitdriver: connect to amqp://shop:xxxxx@127.0.0.1:1/shop: dial tcp 127.0.0.1:1: connect: connection refused
}
