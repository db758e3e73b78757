package redact_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/redact"
)

func TestURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"nats://localhost:4222":                                 "nats://localhost:4222",
		"nats://ada:pw@h:4222":                                  "nats://ada:xxxxx@h:4222",
		"nats://token@h:4222":                                   "nats://xxxxx@h:4222",
		"nats://ada:p@ss/w%zz@h:4222":                           "nats://ada:xxxxx@h:4222",
		"nats://a:pw@h1,nats://b:pw2@h2":                        "nats://a:xxxxx@h1,nats://b:xxxxx@h2",
		"nats://a:pw@h1,h2":                                     "nats://a:xxxxx@h1,h2",
		"nats://a:p,w@h1,h2":                                    "nats://a:xxxxx@h1,h2",
		"nats://a:p,w@h1,nats://b:,@h2":                         "nats://a:xxxxx@h1,nats://b:xxxxx@h2",
		"postgres://h/db?user=u&password=p%40w&sslmode=disable": "postgres://h/db?user=u&password=xxxxx&sslmode=disable",
		"nats://a:p?w@h?TOKEN=t":                                "nats://a:xxxxx@h?TOKEN=xxxxx",
		"sqlite:users.db":                                       "sqlite:users.db",
		"ada:pw@h":                                              "ada:xxxxx@h",
		"":                                                      "",
		"amqp://ada:p,w@h1:1,h2:2":                              "amqp://ada:xxxxx@h1:1,h2:2",
		"amqp://ada:pw@h1,h2/v":                                 "amqp://ada:xxxxx@h1,h2/v",
	} {
		if got := redact.URL(in); got != want {
			t.Errorf("URL(%q) = %q, want %q", in, got, want)
		}
	}
}
