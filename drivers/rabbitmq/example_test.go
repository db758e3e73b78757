package rabbitmq_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
)

func Example() {
	b, err := rabbitmq.Open(context.Background(), "amqp://shop:secret@127.0.0.1:1/shop?partitions=4", nil)
	if err != nil { // nobody listens on that port
		fmt.Println(err)
		return
	}
	defer b.Close(context.Background())
	// Output: rabbitmq: connect to amqp://shop:xxxxx@127.0.0.1:1/shop: dial tcp 127.0.0.1:1: connect: connection refused
}
