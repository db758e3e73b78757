package kafka_test

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	cluster, err := kfake.NewCluster() // in this process; yours has a URL such as kafka://localhost:9092
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	b, err := kafka.Open(ctx, "kafka://"+cluster.ListenAddrs()[0]+"?partitions=4&retention=24h", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(context.Background())
	err = b.Publish(ctx, []driver.Message{{ID: "1", Topic: "order.placed.v1", Key: "7", Data: []byte(`{"id":7}`)}})
	fmt.Println("published:", err)
	sub := driver.Subscription{Topic: "order.placed.v1", Group: "mail-service", From: driver.FromBeginning}
	err = b.Subscribe(ctx, sub, func(d driver.Delivery) {
		fmt.Printf("%s: %s\n", d.Key, d.Data)
		_ = d.Ack(ctx)
		cancel()
	})
	fmt.Println("subscribed:", err)
	// Output:
	// published: <nil>
	// 7: {"id":7}
	// subscribed: <nil>
}
