package rabbitmq_test

import (
	"context"
	"fmt"

	_ "github.com/kaptar/kaptar/drivers/rabbitmq" // for the schemes amqp and amqps
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	b, err := driver.Open(context.Background(), "amqp://shop:secret@127.0.0.1:1/shop?partitions=4")
	if err != nil { // nobody listens on that port
		fmt.Println(err)
		return
	}
	defer b.Close(context.Background())
	// Output: rabbitmq: connect to amqp://shop:xxxxx@127.0.0.1:1/shop: dial tcp 127.0.0.1:1: connect: connection refused
}
