package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/drivers"
	_ "github.com/kaptar/kaptar/drivers/kafka"
	_ "github.com/kaptar/kaptar/drivers/nats"
	_ "github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A driven is the side of a driver.
type driven struct {
	broker driver.Broker
	group  string // "": a new one each time
}

func openDriver(ctx context.Context, url, group string) (*driven, error) {
	backend, err := new(drivers.Set).Open(ctx, url)
	if err != nil {
		return nil, err
	}
	broker, err := backend.(interface{ Broker() (driver.Broker, error) }).Broker()
	if err != nil {
		return nil, err
	}
	return &driven{broker, group}, nil
}

func (d *driven) prepare(ctx context.Context, topic string) error {
	if d.group == "" {
		return d.broker.Declare(ctx, driver.Subscription{Topic: topic})
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	joined := make(chan error, 1)
	go func() {
		joined <- d.subscribe(ctx, topic, func(m driver.Delivery) {
			_ = m.Ack(ctx)
			stop()
		})
	}()
	for probe := (event{id: "probe"}); ; {
		_ = d.broker.Publish(ctx, []driver.Message{message(topic, &probe)}) // fails until the group is there
		select {
		case err := <-joined:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func message(topic string, e *event) driver.Message {
	return driver.Message{ID: e.id, Topic: topic, Key: e.key, Data: e.data, Headers: driver.Headers{
		{Name: driver.HeaderID, Value: e.id}, {Name: driver.HeaderType, Value: eventType}, {Name: driver.HeaderContentType, Value: contentType},
	}}
}

func (d *driven) publisher(topic string, _ int) (func(context.Context, []event) error, error) {
	return func(ctx context.Context, events []event) error {
		list := make([]driver.Message, len(events))
		for i := range events {
			list[i] = message(topic, &events[i])
		}
		return d.broker.Publish(ctx, list)
	}, nil
}

func (d *driven) subscribe(ctx context.Context, topic string, deliver func(driver.Delivery)) error {
	group := d.group
	if group == "" {
		group = rand.Text()
	}
	return d.broker.Subscribe(ctx, driver.Subscription{Topic: topic, Group: group, From: driver.FromBeginning, MaxInFlight: inFlight}, deliver)
}

func (d *driven) consume(ctx context.Context, topic string, n int, handle func(id, key string, data []byte)) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var failure error
	got := 0
	err := d.subscribe(work, topic, func(m driver.Delivery) {
		if got == n {
			return // comes again
		}
		handle(m.ID, m.Key, m.Data)
		if err := m.Ack(ctx); err != nil {
			failure = err
		}
		if got++; got == n {
			stop()
		}
	})
	switch {
	case err != nil:
		return err
	case failure != nil:
		return failure
	case got < n:
		return fmt.Errorf("got %d of %d events: %w", got, n, context.Cause(ctx))
	}
	return nil
}

func (d *driven) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = d.broker.Close(ctx)
}
