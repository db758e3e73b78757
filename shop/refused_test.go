package main

import (
	"context"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestServersRefused names servers wrongly, one at a time: the service does not start, and says which setting and value it was
// and what is wrong, without the password.
func TestServersRefused(t *testing.T) {
	t.Parallel()
	const nowhere = "127.0.0.1:1"
	backends := servertest.StartAll(t, []servers.Options{{Logins: map[string]string{"me": "right"}}}, servers.Kafka, servers.Postgres, servers.RabbitMQ)
	kafka, postgres, rabbit := backends[0], backends[1], backends[2]
	wrong := func(s *servers.Server, userinfo string) string {
		scheme, rest, _ := strings.Cut(s.URL(), "://")
		_, host, _ := strings.Cut(rest, "@")
		return scheme + "://" + userinfo + "@" + host
	}
	for _, c := range []struct {
		name, setting, url string
		says               []string
	}{
		{"database: unknown role", "database_url", wrong(postgres, "wrong:s3cret"), []string{"notification-service", "database", "wrong"}},
		{"database: unreachable", "database_url", "postgres://me:s3cret@" + nowhere + "/x", []string{"notification-service", "database", nowhere, "connection refused"}},
		{"database: wrong scheme", "database_url", "mysql://me:s3cret@" + nowhere + "/x", []string{"notification-service", "database", "mysql", "postgres"}},
		{"broker: wrong password", "broker_url", wrong(rabbit, "guest:s3cret"), []string{"broker_url", "guest", "password is wrong"}},
		{"Kafka: wrong password", "broker_url", "kafka://me:s3cret@" + kafka.Addr("sasl"), []string{"broker_url", "kafka://me:xxxxx@" + kafka.Addr("sasl"), "password is wrong"}},
		{"Kafka: unknown user", "broker_url", "kafka://you:s3cret@" + kafka.Addr("sasl") + "?sasl=scram-sha-512", []string{"broker_url", "kafka://you:xxxxx@" + kafka.Addr("sasl"), "password is wrong"}},
		{"Kafka: no user", "broker_url", "kafka://" + kafka.Addr("sasl"), []string{"broker_url", kafka.Addr("sasl"), "names no user"}},
		{"broker: wrong scheme", "broker_url", "kafak://me:s3cret@" + nowhere, []string{"broker_url", "kafak", "kafka"}},
		{"RabbitMQ: unknown parameter", "broker_url", "amqp://me:s3cret@" + nowhere + "/?partition=3", []string{"broker_url", "partition", "partitions"}},
		{"RabbitMQ keeps no history", "broker_url", rabbit.URL(), []string{"from_beginning"}},
		{"a topic's broker: wrong scheme", "topics.email.send.v1.url", "ampq://me:s3cret@" + nowhere, []string{"topics.email.send.v1.url", "ampq", "amqp"}},
		{"registry: wrong scheme", "discovery_url", "consull://s3cret@" + nowhere, []string{"discovery_url", "consull", "consul"}},
		{"registry: unreachable", "discovery_url", "consul://s3cret@" + nowhere, []string{"discovery_url", nowhere, "connection refused"}},
		{"registry: unknown parameter", "discovery_url", "consul://s3cret@" + nowhere + "?chek=ttl", []string{"discovery_url", "chek", "check"}},
	} {
		try := func(t *testing.T, in *install) {
			args := []string{"run", "notification-service", "--config", in.Dir + "/config.yml", "--set", c.setting + "=" + c.url}
			if c.setting != "database_url" {
				args = append(args, "--database-url", "sqlite:mails.db")
			}
			if c.setting != "broker_url" {
				args = append(args, "--broker-url", rabbit.URL()+"?from_beginning=now")
			}
			stdout, stderr, code := in.Fail(context.WithoutCancel(t.Context()), args)
			if code != 1 {
				t.Errorf("exit code %d, want 1; it said %s%s", code, stdout, stderr)
			}
			for _, part := range c.says {
				if !strings.Contains(stderr, part) {
					t.Errorf("it does not say %q, but:\n%s", part, stderr)
				}
			}
			if strings.Contains(stdout+stderr, "s3cret") || strings.Contains(stderr, "goroutine ") {
				t.Errorf("it shows the password, or a stack:\n%s", stderr)
			}
		}
		if c.name != "registry: unreachable" {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				try(t, newInstall(t, binary))
			})
			continue
		}
		// It is waited for, 30 s long. A cleanup does not keep other tests from running meanwhile.
		in, tried := newInstall(t, binary), make(chan struct{})
		t.Cleanup(func() { <-tried })
		go func() {
			defer close(tried)
			try(t, in)
		}()
	}
}
