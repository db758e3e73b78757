package messaging_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
)

// locked is the URL of a broker that wants another password.
func locked(t *testing.T) string {
	u, err := url.Parse(servertest.VHost(t))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), "geheim")
	return u.String()
}

func TestSetupErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	broker := startBroker(t).url()
	tests := map[string]struct {
		values map[string]string
		topic  string
		from   messaging.Start
		want   []string
	}{
		"no broker":         {nil, "", 0, []string{"messaging: ", "shop", "order.placed.v1", "BROKER_URL"}},
		"no scheme":         {map[string]string{"broker_url": "localhost"}, "", 0, []string{"broker_url", `"localhost"`, "nats://localhost:4222"}},
		"unknown scheme":    {map[string]string{"broker_url": "smtp://u:geheim@h"}, "", 0, []string{"broker_url", "smtp://u:xxxxx@h", "nats"}},
		"driver not linked": {map[string]string{"broker_url": "redis://u:geheim@h"}, "", 0, []string{"broker_url", "redis://u:xxxxx@h", "redis"}},
		"wrong password":    {map[string]string{"broker_url": locked(t)}, "", 0, []string{"broker_url", "password"}},
		"no database":       {map[string]string{"broker_url": broker, "services.shop.database_url": ""}, "", 0, []string{"shop", "DATABASE_URL", "outbox"}},
		"wrong database":    {map[string]string{"broker_url": broker, "services.shop.database_url": "oracle://u:geheim@h"}, "", 0, []string{"shop", "oracle"}},
		"topic name":        {map[string]string{"broker_url": broker}, "order placed", 0, []string{"messaging: ", `"order placed"`, "letters"}},
		"empty topic name":  {map[string]string{"broker_url": broker}, "-", 0, []string{"messaging: ", "letters"}},
		"no start":          {map[string]string{"broker_url": broker}, "", 99, []string{"messaging: ", "order.placed.v1", "FromNow", "FromBeginning"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := orders
			if test.topic != "" {
				topic.Name = test.topic
			}
			for how, setup := range map[string]func(*kaptar.App) error{
				"publisher": func(app *kaptar.App) error {
					_, err := messaging.NewPublisher(app, topic)
					return err
				},
				"subscription": func(app *kaptar.App) error {
					ignore := func(context.Context, messaging.Event[placed]) error { return nil }
					return messaging.SubscribeAutoAck(app, topic, ignore, &messaging.SubscribeOptions{From: test.from})
				},
			} {
				if test.from != 0 && how == "publisher" {
					continue
				}
				if strings.HasSuffix(name, "database") && how == "subscription" {
					continue // it needs none
				}
				service := kaptar.Service{Name: "shop", Setup: setup}
				ctx, cancel := context.WithCancel(t.Context())
				err := kaptar.Run(ctx, &kaptar.Options{
					Sources: config.Sources{Defaults: settings(t.TempDir(), test.values, []kaptar.Service{service})},
					Log:     io.Discard, Ready: func([]discovery.Instance) { cancel() },
				}, service)
				cancel()
				if err == nil {
					t.Errorf("%s: Run = nil, want an error with %q", how, test.want)
					continue
				}
				for _, part := range test.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s: Run = %v, want %q in it", how, err, part)
					}
				}
				if strings.Contains(err.Error(), "geheim") {
					t.Errorf("%s: Run = %v: it tells the password", how, err)
				}
			}
		})
	}
}

// TestLostBrokerIsTold: the metric of that broker says so, and the service stays ready.
func TestLostBrokerIsTold(t *testing.T) {
	t.Parallel()
	var shop shop
	own, general := startBroker(t), startBroker(t)
	second := messaging.Topic[placed]{Name: "second"}
	service := shop.service()
	setup := service.Setup
	service.Setup = func(app *kaptar.App) error {
		if err := setup(app); err != nil {
			return err
		}
		_, err := messaging.NewPublisher(app, second)
		return err
	}
	s := start(t, t.TempDir(), map[string]string{"broker_url": general.url(), "topics.order.placed.v1.url": own.url()}, service)
	for setting, n := range map[string]*natsServer{"topics.order.placed.v1.url": own, "broker_url": general} {
		up := func() string {
			return s.metric("shop", fmt.Sprintf("messaging_broker_up{broker=%q,service=\"shop\"}", setting))
		}
		eventually(t, setting+" to be up", func() bool { return up() == "1" })
		n.stop()
		eventually(t, setting+" to be down", func() bool { return up() == "0" })
		if status := s.Do("GET", "shop", "/readyz", "").Status; status != http.StatusOK {
			t.Errorf("/readyz without the broker of %s: got %d, want 200", setting, status)
		}
		n.start()
	}
}

func TestPermanent(t *testing.T) {
	t.Parallel()
	if err := messaging.Permanent(nil); err != nil {
		t.Errorf("Permanent(nil) = %v, want nil", err)
	}
	if err := messaging.Permanent(driver.ErrInvalid); err.Error() != driver.ErrInvalid.Error() {
		t.Errorf("Permanent(%q) = %q, want the same text", driver.ErrInvalid, err)
	}
}
