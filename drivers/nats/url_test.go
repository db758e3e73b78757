package nats

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	for servers, want := range map[string]nats.Options{
		"nats://h1,h2":                     {},
		"nats://ada:p%40ss@h1:4222,h2":     {User: "ada", Password: "p@ss"},
		"nats://h1,nats://token@h2":        {Token: "token"},
		"tls://ada:one@h1,tls://bo:two@h2": {User: "ada", Password: "one"},
	} {
		options, err := credentials(servers)
		if err != nil {
			t.Errorf("%q: %v", servers, err)
		}
		var got nats.Options
		for _, o := range options {
			if err := o(&got); err != nil {
				t.Fatal(err)
			}
		}
		if got.User != want.User || got.Password != want.Password || got.Token != want.Token {
			t.Errorf("credentials of %q are %q %q %q, want %q %q %q", servers, got.User, got.Password, got.Token, want.User, want.Password, want.Token)
		}
	}
	for _, servers := range []string{"", "nats:", "localhost:4222", "nats://ada:secret@", "nats://h1,nats://ada:secret%@h2"} {
		if _, err := credentials(servers); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want an error without the password", servers, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse("nats://a:b@h1,h2?replicas=3&ttl=5s&max_age=5m&bucket=b")
	want := settings{
		servers: "nats://a:b@h1,h2", replicas: 3, ttl: 5 * time.Second, bucket: "b",
		maxAge: 5 * time.Minute, duplicateWindow: 5 * time.Minute, ackWait: 30 * time.Second,
	}
	if err != nil || got != want {
		t.Errorf("parse = %+v, %v, want %+v", got, err, want)
	}
}
