package nats_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestRights: what a user may not do fails soon, and the error names the topic, the server and what
// is refused.
func TestRights(t *testing.T) {
	t.Parallel()
	looks := []string{"$JS.API.INFO", "$JS.API.STREAM.INFO.>", "open.*"}
	joins := slices.Concat(looks, []string{"$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DURABLE.CREATE.>"})
	pulls := slices.Concat(joins, []string{"$JS.API.CONSUMER.MSG.NEXT.>"})
	rights := map[string][]string{"looks": looks, "joins": joins, "pulls": pulls, "ada": {">"}}
	s := startServer(t, func(o *server.Options) {
		for name, allow := range rights {
			o.Users = append(o.Users, &server.User{Username: name, Password: "right", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: allow}, Subscribe: &server.SubjectPermission{Allow: []string{">"}},
			}})
		}
	})
	host := strings.TrimPrefix(s.s.ClientURL(), "nats://")
	brokers := make(map[string]*testBroker)
	for name := range rights {
		b := open(t, "nats://"+name+":right@"+host+"?atomic=true")
		brokers[name] = b
		t.Cleanup(func() { closeNow(t, b) })
	}
	for _, topic := range []string{"seen", "open"} {
		if err := brokers["ada"].Publish(t.Context(), messages(topic, "m", 3)); err != nil {
			t.Fatal(err)
		}
	}
	declare := func(b driver.Broker) error { return b.Declare(t.Context(), driver.Subscription{Topic: "unmade"}) }
	send := func(n int) func(driver.Broker) error {
		return func(b driver.Broker) error { return b.Publish(t.Context(), messages("seen", "n", n)) }
	}
	subscribe := func(group string) func(driver.Broker) error {
		return func(b driver.Broker) error {
			sub := driver.Subscription{Topic: "seen", Group: group, From: driver.FromBeginning}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			return b.Subscribe(ctx, sub, func(d driver.Delivery) { _ = d.Ack(context.Background()) })
		}
	}
	lag := func(b driver.Broker) error {
		_, err := b.(driver.LagReporter).Lag(t.Context(), driver.Subscription{Topic: "seen", Group: "g4", From: driver.FromNow})
		return err
	}
	for _, c := range []struct {
		user, name string
		call       func(driver.Broker) error
		says       []string
	}{
		{"looks", "make a topic", declare, []string{"declare topic unmade", "$JS.API.STREAM.CREATE.unmade"}},
		{"looks", "publish", send(1), []string{"publish to seen", `"seen.`}},
		{"looks", "publish a batch", send(100), []string{"publish to seen", `"seen.`}},
		{"looks", "subscribe", subscribe("g1"), []string{"subscribe g1 to seen", "$JS.API.CONSUMER.INFO.seen.g1"}},
		{"looks", "lag", lag, []string{"lag of group g4 in topic seen", "$JS.API.CONSUMER.INFO.seen.g4"}},
		{"joins", "pull", subscribe("g2"), []string{"subscribe g2 to seen", "$JS.API.CONSUMER.MSG.NEXT.seen.g2"}},
		{"pulls", "acknowledge", subscribe("g3"), []string{"subscribe g3 to seen", "$JS.ACK.seen.g3."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			err := c.call(brokers[c.user])
			took := time.Since(begun)
			if err == nil {
				t.Fatal("no error, want one")
			}
			t.Logf("after %v: %v", took, err)
			for _, part := range append(c.says, "nats://"+c.user+":xxxxx@"+host, "ermissions") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q, want it to say %q", err, part)
				}
			}
			if took > 5*time.Second {
				t.Errorf("it took %v, want at most 5s: the server answered at once", took)
			}
		})
	}
	t.Run("others are not blamed", func(t *testing.T) {
		t.Parallel()
		var refused sync.WaitGroup
		for range 50 {
			refused.Go(func() { _ = send(1)(brokers["looks"]) })
			if err := brokers["looks"].Publish(t.Context(), messages("open", "o", 1)); err != nil {
				t.Fatalf("Publish with the right, beside one without = %v, want nil", err)
			}
		}
		refused.Wait()
	})
}
