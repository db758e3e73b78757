package rabbitmq_test

import (
	"context"
	"fmt"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	b, err := rabbitmq.Open(context.Background(), "amqp://shop:secret@127.0.0.1:1/shop?partitions=4", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(context.Background())
	err = b.Declare(context.Background(), driver.Subscription{Topic: "order.placed.v1"})
	fmt.Println("nobody listens on that port, and it is tried again and again:", err != nil)
	// Output: nobody listens on that port, and it is tried again and again: true
}
