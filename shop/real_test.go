package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/shop/events"
)

// prepareReal starts the servers of the real shape, which belong to this test
// alone, and names them in the settings. Kafka is to notice after 6 s, which is the
// least that it takes, that a killed process is gone.
func prepareReal(t *testing.T, s *site) {
	t.Helper()
	s.servers = make(map[servers.Engine]*servers.Server)
	engines := []servers.Engine{servers.Postgres, servers.Kafka, servers.RabbitMQ, servers.Consul, servers.Redis}
	for i, server := range servertest.StartAll(t, nil, engines...) {
		s.servers[engines[i]] = server
	}
	s.in.Databases = make(map[string]string)
	for _, service := range serviceNames() {
		name := strings.ReplaceAll(service, "-", "_")
		s.in.Databases[service] = createDatabase(t, s.servers[servers.Postgres].URL(), name) + poolSize
	}
	s.in.Extra += knownKeys(operatorKey)
	s.in.Extra += fmt.Sprintf("broker_url: %q\ndiscovery_url: %q\nredis_url: %q\ntopics:\n  %s:\n    url: %q\ndemo: true\n",
		s.servers[servers.Kafka].URL()+"?partitions=4&ack_wait=6s", s.servers[servers.Consul].URL(), s.servers[servers.Redis].URL(),
		events.EmailSend.Name, s.servers[servers.RabbitMQ].URL()+"?partitions=2")
}

// poolSize keeps three processes of each service below what the server has.
const poolSize = "&pool_max_conns=8"

// createDatabase makes a database and returns its URL.
func createDatabase(t *testing.T, admin, name string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// startReal starts each service alone, all at the same time, as a machine that
// boots does.
func startReal(t *testing.T, s *site) {
	t.Helper()
	var starting sync.WaitGroup
	errs := make(chan error, len(serviceNames()))
	for _, service := range serviceNames() {
		starting.Go(func() {
			p, err := s.in.Run(context.Background(), service)
			if err != nil {
				errs <- fmt.Errorf("%s: %w", service, err)
				return
			}
			s.put(service, p)
		})
	}
	starting.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	dialRabbit(t, s.servers[servers.RabbitMQ].URL()).(rabbitWire).tap(t, events.EmailSend.Name)
}

// realWire is the client of the broker that the settings above give to topic.
func realWire(t *testing.T, s *site, topic string) wire {
	if topic == events.EmailSend.Name {
		return dialRabbit(t, s.servers[servers.RabbitMQ].URL())
	}
	return dialKafka(t, s.servers[servers.Kafka].URL())
}
