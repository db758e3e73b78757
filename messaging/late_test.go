package messaging_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging"
)

// away returns the URL of the server at rawURL as one that cannot be reached until come is called.
func away(t *testing.T, rawURL string) (at string, come func()) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	u.Host = fmt.Sprint("127.0.0.1:", servertest.Port(t))
	return u.String(), func() {
		l, err := net.Listen("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				from, err := l.Accept()
				if err != nil {
					return
				}
				to, err := net.Dial("tcp", server)
				if err != nil {
					_ = from.Close()
					continue
				}
				for _, c := range [][2]net.Conn{{from, to}, {to, from}} {
					go func() {
						_, _ = io.Copy(c[0], c[1])
						_ = c[0].Close()
					}()
				}
			}
		}()
	}
}

// TestBrokerThatComesLater: a service whose broker is away starts as one whose broker goes away later
// goes on: it is ready, the metric and one line of the log tell, and events wait. Once the broker is
// there it declares what it needs, the group from now on before the events that waited.
func TestBrokerThatComesLater(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func(t *testing.T) string{
		"nats":     func(t *testing.T) string { return startBroker(t).url() },
		"kafka":    func(t *testing.T) string { return servertest.Shared(t, servers.Kafka).URL() },
		"rabbitmq": func(t *testing.T) string { return servertest.VHost(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, come := away(t, broker(t))
			shop := shop{topic: "late." + rand.Text()}
			store := newStore(nil)
			store.topic, store.opts = shop.topic, &messaging.SubscribeOptions{From: messaging.FromNow}
			s := start(t, t.TempDir(), map[string]string{"broker_url": at}, kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
				return errors.Join(shop.service().Setup(app), store.service().Setup(app))
			}})
			up := func() string { return s.metric("shop", `messaging_broker_up{broker="broker_url",service="shop"}`) }
			if status := s.Do("GET", "shop", "/readyz", "").Status; status != http.StatusOK || up() != "0" {
				t.Errorf("without the broker: /readyz says %d and messaging_broker_up is %s, want 200 and 0", status, up())
			}
			shop.publish(t, "k", placed{N: 1}, placed{N: 2})
			eventually(t, "the log to say so", func() bool { return strings.Contains(s.Log(), name+" lost") })
			come()
			store.waitFor(t, "k", 1, 2)
			eventually(t, "messaging_broker_up to be 1", func() bool { return up() == "1" })
			eventually(t, "the log to say so", func() bool { return strings.Contains(s.Log(), name+" is back") })
			if begun, ended, _ := waittest.Outages(s.Log(), `msg="`+name); begun != 1 || ended != 1 {
				t.Errorf("%d outages and %d ends in the log, want one:\n%s", begun, ended, s.Log())
			}
			if strings.Contains(s.Log(), `msg="subscription lost`) {
				t.Errorf("the log tells of the subscription too:\n%s", s.Log())
			}
		})
	}
}

// TestOneBrokerComesLater: the broker of one topic is away at the start, and the other topic works.
func TestOneBrokerComesLater(t *testing.T) {
	t.Parallel()
	at, come := away(t, startBroker(t).url())
	var shop shop
	store := newStore(nil)
	second := messaging.Topic[placed]{Name: "second"}
	var publisher *messaging.Publisher[placed]
	start(t, t.TempDir(), map[string]string{"broker_url": at, "topics.order.placed.v1.url": startBroker(t).url()}, kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) (err error) {
		err = errors.Join(shop.service().Setup(app), store.service().Setup(app))
		if err == nil {
			publisher, err = messaging.NewPublisher(app, second)
		}
		return err
	}})
	if err := publisher.PublishNow(t.Context(), "k", placed{N: 1}); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(at, "nats://")) {
		t.Errorf("PublishNow without its broker = %v, want an error with %s", err, at)
	}
	shop.publish(t, "k", placed{N: 1})
	store.waitFor(t, "k", 1)
	come()
	eventually(t, "PublishNow to work", func() bool { return publisher.PublishNow(t.Context(), "k", placed{N: 2}) == nil })
}
