package nats_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	url, stop := exampleServer() // a real one; yours has a URL such as nats://localhost:4222
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	backend, err := nats.Open(ctx, url+"?max_age=24h", nil) // in a service: app.Backend
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Close(context.Background())
	b, err := backend.Broker()
	if err != nil {
		fmt.Println(err)
		return
	}
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

func exampleServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "nats")
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	s.Start()
	s.ReadyForConnections(20 * time.Second)
	return s.ClientURL(), func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
