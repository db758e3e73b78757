package rabbitmq_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	host := url[strings.LastIndex(url, "@")+1:]
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	drivertest.Opening(t, func(ctx context.Context, url string) (driver.Broker, error) { return rabbitmq.Open(ctx, url, nil) }, map[string]string{
		"amqp://kaptar:secret@" + host:     `the user "kaptar" or its password is wrong`,
		url + "x":                          "x\" does not exist",
		"amqp://ada:secret@h?order_by=key": `unknown parameter "order_by"`,
		"amqp://h?ack_wait=week":           `ack_wait="week": expected a duration`,
		"amqp://h?balance=1ms":             "100ms",
		"amqp://h?partitions=65":           "1 to 64",
		"amqp://h?partitions=0":            "1 to 64",
		"amqp://h?partitions=x":            "1 to 64",
		"amqp://h?order=id":                "key or none",
		"amqp://h?mandatory=perhaps":       "true or false",
		"amqp://h?from_beginning=then":     "now or refuse",
		"amqp://h?%zz":                     "parameters",
		"amqp://ada:secret%zz@h":           "percent-encoded",
		"amqp://ada:se/cret@h":             "percent-encoded",
		"amqp://ada:secret@h,/v":           "host1:5672",
	}, map[string]string{
		"amqp://ada:secret@127.0.0.1:1/v":             "amqp://ada:xxxxx@127.0.0.1:1/v since",
		"amqp://ada:secret@127.0.0.1:1,127.0.0.1:2/v": "127.0.0.1:2: connect",
		"amqp://ada:secret@" + silent.Addr().String(): "does not speak AMQP",
	})
}

// TestSecondHost: the first server of the URL that answers is used.
func TestSecondHost(t *testing.T) {
	t.Parallel()
	url := strings.Replace(servertest.VHost(t), "@", "@127.0.0.1:1,", 1)
	b := open(t, url, options())
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Errorf("Publish to the second host = %v, want nil", err)
	}
	var conn *amqp.Connection
	if !b.As(&conn) || conn.Config.Properties["connection_name"] != "kaptar" || b.As(new(string)) {
		t.Error("As does not give the connection, or gives a string")
	}
}

// TestLostConnection cuts both connections and lets them be made again.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	at := strings.LastIndex(url, "@")
	address, vhost, _ := strings.Cut(url[at+1:], "/")
	p := servertest.NewProxy(t, address)
	b := open(t, url[:at+1]+p.Addr()+"/"+vhost, options())
	defer closeNow(t, b)
	m := join(t, b, driver.Subscription{Topic: "t", Group: "g", MaxInFlight: 1})
	if err := b.Publish(t.Context(), messages("t", "m", 2)); err != nil {
		t.Fatal(err)
	}
	held := m.next(t)

	p.Refuse(true)
	p.Cut()
	until(t, "the loss to be noticed", func() bool { return b.Healthy() != nil })
	if err := b.Healthy(); !strings.Contains(err.Error(), "no connection to amqp://guest:xxxxx@127.0.0.1") || !strings.Contains(err.Error(), " since ") {
		t.Errorf("Healthy = %q without a server, want its address without the password, and since when", err)
	}
	// The connection that messages come over is another one, and its loss is noticed by itself.
	until(t, "the member to notice", func() bool { return held.Extend(t.Context()) != nil })
	start := time.Now()
	for name, call := range map[string]func() error{
		"Publish": func() error { return b.Publish(t.Context(), messages("t", "x", 1)) },
		"Declare": func() error { return b.Declare(t.Context(), driver.Subscription{Topic: "t"}) },
		"Ack":     func() error { return held.Ack(t.Context()) },
		"Extend":  func() error { return held.Extend(t.Context()) },
		"Nack":    func() error { return held.Nack(t.Context(), 0) },
		"Subscribe": func() error {
			return b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow}, func(driver.Delivery) {})
		},
	} {
		if call() == nil {
			t.Errorf("%s without a server = nil, want an error", name)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("calls without a server took %v to fail, want about none", took)
	}

	p.Refuse(false)
	until(t, "the reconnection", func() bool { return b.Healthy() == nil })
	for seen := map[string]bool{}; len(seen) < 2; {
		d := m.next(t)
		if d.ID == held.ID && d.Attempt < 2 {
			t.Errorf("%s came again as attempt %d, want 2 or more", d.ID, d.Attempt)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Errorf("Ack after the reconnection = %v, want nil", err)
		}
		seen[d.ID] = true
	}
	m.stop()
	if err := m.ended(t); err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
}

// TestCutWhileWaiting: a Publish that waits for confirms ends when the connection breaks, and can
// be repeated.
func TestCutWhileWaiting(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	at := strings.LastIndex(url, "@")
	address, vhost, _ := strings.Cut(url[at+1:], "/")
	p := servertest.NewProxy(t, address)
	b := open(t, url[:at+1]+p.Addr()+"/"+vhost, options())
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 30} {
		batch := messages("t", "m", n)
		p.Keep()
		result := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		go func() { result <- b.Publish(ctx, batch) }()
		<-p.Held()
		start := time.Now()
		p.Cut()
		err := <-result
		cancel()
		if took := time.Since(start); err == nil || took > 8*time.Second {
			t.Errorf("Publish of %d messages whose connection was cut = %v after %v, want an error soon", n, err, took)
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish of %d messages whose connection was cut = %v, want no error of the caller's context", n, err)
		}
		until(t, "the reconnection", func() bool { return b.Publish(t.Context(), batch) == nil })
	}
	p.Keep() // and one whose server is silent ends with its context
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, messages("t", "late", 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish to a silent server = %v, want context.DeadlineExceeded", err)
	}
	closing, cancelClosing := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancelClosing()
	if err := b.Close(closing); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close with a silent server = %v, want context.DeadlineExceeded", err)
	}
}

var _ driver.HealthReporter = (*rabbitmq.Broker)(nil)
