package main

import (
	"context"
	"os"

	"github.com/kaptar/kaptar/internal/test/servers"
)

func engines() []engine {
	return []engine{
		{name: "nats-embedded", start: func(context.Context) (string, func(), error) { return startNATS(true) }, open: openNATS},
		{name: "nats", start: startNATSProcess, open: openNATS},
		{name: "kafka", start: start(servers.Kafka, "KAPTAR_TEST_KAFKA"), open: openKafka(false)},
		{name: "kafka-each", start: start(servers.Kafka, "KAPTAR_TEST_KAFKA"), open: openKafka(true), only: "consume"},
		{name: "rabbitmq", start: start(servers.RabbitMQ, "KAPTAR_TEST_RABBITMQ"), open: openRabbit(false), once: true},
		{name: "rabbitmq-key", start: start(servers.RabbitMQ, "KAPTAR_TEST_RABBITMQ"), open: openRabbit(true), once: true},
	}
}

// start returns what starts a real server, unless the environment names one that runs.
func start(e servers.Engine, env string) func(context.Context) (string, func(), error) {
	return func(ctx context.Context) (string, func(), error) {
		if given := os.Getenv(env); given != "" {
			return given, func() {}, nil
		}
		if err := servers.Install(ctx, os.Stderr, string(e)); err != nil {
			return "", nil, err
		}
		s, err := servers.Start(ctx, e, nil)
		if err != nil {
			return "", nil, err
		}
		return s.URL(), func() { _ = s.Close() }, nil
	}
}
