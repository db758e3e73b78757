package main

import (
	"context"
	"os"

	"github.com/kaptar/kaptar/internal/test/servers"
)

func engines() []engine {
	const rabbit = "?mandatory=true&from_beginning=now&order="
	nats := start(servers.NATS, &servers.Options{Config: "sync: 2m"}) // the server's default
	kafka := start(servers.Kafka, nil)
	rabbitmq := start(servers.RabbitMQ, nil)
	return []engine{
		{name: "nats-embedded", start: startNATS, bare: openNATS, few: true},
		{name: "nats", start: nats, bare: openNATS, few: true},
		{name: "kafka", start: kafka, bare: openKafka(false)},
		{name: "kafka-each", start: kafka, bare: openKafka(true), consumeOnly: true},
		{name: "rabbitmq", start: rabbitmq, bare: openRabbit(false), params: rabbit + "none", group: rabbitGroup, few: true, once: true},
		{name: "rabbitmq-key", start: rabbitmq, bare: openRabbit(true), params: rabbit + "key", group: rabbitGroup, few: true, once: true},
	}
}

// start returns what starts a real server.
func start(e servers.Engine, opts *servers.Options) func(context.Context) (string, func(), error) {
	return func(ctx context.Context) (string, func(), error) {
		s, err := servers.Provide(ctx, os.Stderr, e, opts)
		if err != nil {
			return "", nil, err
		}
		return s.URL(), func() { _ = s.Close() }, nil
	}
}
