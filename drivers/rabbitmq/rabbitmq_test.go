package rabbitmq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// testAckWait is longer than a busy machine stands still, for then what is in flight comes again.
const testAckWait = 5 * time.Second

func TestMain(m *testing.M) {
	drivertest.Process(func(ctx context.Context, url string) (driver.Broker, error) {
		return rabbitmq.Open(ctx, url, options())
	})
	servertest.Main(m)
}

// options have few partitions: each is a quorum queue, which takes the server some 20 ms to make.
func options() *rabbitmq.Options {
	return &rabbitmq.Options{AckWait: testAckWait, Partitions: 3, Balance: 200 * time.Millisecond}
}

func open(tb testing.TB, url string, o *rabbitmq.Options) *rabbitmq.Broker {
	tb.Helper()
	b, err := rabbitmq.Open(tb.Context(), url, o)
	if err != nil {
		tb.Fatalf("Open = %v", err)
	}
	return b
}

func closeNow(tb testing.TB, b driver.Broker) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		tb.Errorf("Close = %v", err)
	}
}

func harness(t *testing.T, url string) drivertest.Harness {
	return drivertest.Harness{
		Broker: open(t, url, options()), AckWait: testAckWait, Ordered: true, NoReplay: true, CountsAhead: true,
		Open: func(t *testing.T) driver.Broker { return open(t, url, options()) },
		Linked: func(t *testing.T) (driver.Broker, drivertest.Link) {
			at := strings.LastIndex(url, "@")
			address, vhost, _ := strings.Cut(url[at+1:], "/")
			p := servertest.NewProxy(t, address)
			return open(t, url[:at+1]+p.Addr()+"/"+vhost, options()), p
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"key", "none"} {
		t.Run("order="+order, func(t *testing.T) {
			t.Parallel()
			url := servertest.VHost(t) + "?order=" + order
			can := drivertest.Harness{Ordered: true, NoReplay: true, KeyAffinity: order == "key", Open: func(*testing.T) driver.Broker { return nil }}
			can.Broker, can.ProcessURL = (*rabbitmq.Broker)(nil), url
			can.Linked = func(*testing.T) (driver.Broker, drivertest.Link) { return nil, nil }
			if order == "none" {
				can.Parts = -1
			}
			for _, c := range drivertest.Cases() {
				if c.Needs != nil && !c.Needs(can) {
					continue // TestCrash has those about restarts
				}
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel()
					h := harness(t, url)
					h.Parts, h.ProcessURL = can.Parts, url
					c.Run(t, h)
				})
			}
		})
	}
}

func message(topic, id, key string) driver.Message {
	return driver.Message{ID: id, Topic: topic, Key: key, Data: []byte(id)}
}

func messages(topic, prefix string, n int) []driver.Message {
	out := make([]driver.Message, n)
	for i := range out {
		out[i] = message(topic, fmt.Sprint(prefix, i), "k")
	}
	return out
}

// A member is a Subscribe call that runs.
type member struct {
	got    chan driver.Delivery
	stop   context.CancelFunc
	result chan error
}

// join starts a member; it is known to the server when join returns.
func join(t *testing.T, b driver.Broker, sub driver.Subscription) *member {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	m := &member{got: make(chan driver.Delivery, 10_000), stop: stop, result: make(chan error, 1)}
	t.Cleanup(stop)
	sub.From = driver.FromNow
	go func() { m.result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { m.got <- d }) }()
	until(t, "the member", func() bool {
		probe := message(sub.Topic, "probe", "probe")
		probe.Raw = sub.Raw
		if err := b.Publish(t.Context(), []driver.Message{probe}); err != nil {
			t.Fatalf("Publish of a probe = %v", err)
		}
		select {
		case d := <-m.got:
			return d.Ack(t.Context()) == nil
		default:
			return false
		}
	})
	return m
}

// next returns the next delivery that is no probe.
func (m *member) next(t *testing.T) driver.Delivery {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case d := <-m.got:
			if d.ID != "probe" {
				return d
			}
			_ = d.Ack(t.Context()) // when it waited too long it comes again
		case err := <-m.result:
			t.Fatalf("Subscribe = %v while a delivery was awaited", err)
		case <-deadline:
			t.Fatal("no delivery within 30s")
		}
	}
}

// ended returns what Subscribe returned.
func (m *member) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-m.result:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("Subscribe still runs after 30s")
		return nil
	}
}

func until(tb testing.TB, what string, done func() bool) { tb.Helper(); waittest.Until(tb, what, done) }

// plain returns a channel of a client without kaptar.
func plain(tb testing.TB, url string) *amqp.Channel {
	tb.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}
