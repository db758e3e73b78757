package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestPartial has a queue with room for three messages, which refuses the others.
func TestPartial(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "full"}); err != nil {
		t.Fatal(err)
	}
	ch := plain(t, url)
	args := amqp.Table{"x-max-length": int32(3), "x-overflow": "reject-publish"}
	if _, err := ch.QueueDeclare("small", true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("small", "", "full", false, nil); err != nil {
		t.Fatal(err)
	}
	err := b.Publish(t.Context(), append(messages("roomy", "a", 2), messages("full", "b", 5)...))
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok || partial.Sent != 5 || !strings.Contains(err.Error(), "publish to full at amqp://guest:xxxxx@") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Publish of 2 messages and 5 to a topic with room for 3 = %v, want a PartialError with Sent 5 that names the topic", err)
	}
	err = b.Publish(t.Context(), messages("full", "c", 1))
	if _, ok := errors.AsType[*driver.PartialError](err); ok || err == nil {
		t.Errorf("Publish of a message that is refused = %v, want an error that is no PartialError", err)
	}
	if err := b.Publish(t.Context(), messages("roomy", "d", 1200)); err != nil {
		t.Errorf("Publish of 1200 messages after an error = %v, want nil", err)
	}
}

// TestReturnedBeforeRefused: the server confirms a message that it returns, and that one is not sent
// when a later one of its batch is refused.
func TestReturnedBeforeRefused(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	o := options()
	o.Mandatory = true
	b := open(t, url, o)
	defer closeNow(t, b)
	for _, topic := range []string{"full", "empty"} {
		if err := b.Declare(t.Context(), driver.Subscription{Topic: topic}); err != nil {
			t.Fatal(err)
		}
	}
	ch := plain(t, url)
	args := amqp.Table{"x-max-length": int32(3), "x-overflow": "reject-publish"}
	if _, err := ch.QueueDeclare("small", true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("small", "", "full", false, nil); err != nil {
		t.Fatal(err)
	}
	batch := append(messages("full", "a", 1), messages("empty", "b", 2)...)
	err := b.Publish(t.Context(), append(batch, messages("full", "c", 5)...))
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok || partial.Sent != 1 || !errors.Is(err, rabbitmq.ErrNoGroup) || !strings.Contains(err.Error(), `"b0"`) {
		t.Errorf("Publish of a message, 2 to a topic without groups and 5 of which 3 are refused = %v, want ErrNoGroup of b0 with Sent 1", err)
	}
}

// TestDeletedTopic: the exchange is made again at the next try. That does not count as a topic
// without groups until they had time to come back, and messages for them are not lost.
func TestDeletedTopic(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	o := options()
	o.Balance = 2 * time.Second // long enough for the group to come back on a busy machine
	b := open(t, url, o)
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Fatal(err)
	}
	if err := plain(t, url).ExchangeDelete("t", false, false); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), messages("t", "m", 3)); err == nil || !strings.Contains(err.Error(), "NOT_FOUND") {
		t.Errorf("Publish to a deleted exchange = %v, want NOT_FOUND", err)
	}
	if err := b.Publish(t.Context(), messages("t", "m", 3)); !errors.Is(err, rabbitmq.ErrNoGroup) || !strings.Contains(err.Error(), "was deleted a moment ago") {
		t.Errorf("the second Publish to a deleted exchange = %v, want ErrNoGroup that says why", err)
	}
	until(t, "a topic without groups to be one again", func() bool { return b.Publish(t.Context(), messages("t", "m", 3)) == nil })

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	got := make(chan string, 1000)
	go func() {
		for ctx.Err() == nil { // it ends when it sees the deletion before the publisher does
			_ = b.Subscribe(ctx, driver.Subscription{Topic: "grouped", Group: "g", From: driver.FromNow}, func(d driver.Delivery) {
				_ = d.Ack(ctx)
				got <- d.ID
			})
		}
	}()
	until(t, "the group", func() bool {
		if err := b.Publish(t.Context(), messages("grouped", "probe", 1)); err != nil {
			t.Fatal(err)
		}
		return len(got) > 0
	})
	if err := plain(t, url).ExchangeDelete("grouped", false, false); err != nil {
		t.Fatal(err)
	}
	batch := append(messages("t", "a", 20), message("grouped", "b", "k")) // the error is not that of the first topic
	until(t, "the group to be back", func() bool {
		err := b.Publish(t.Context(), batch)
		if err != nil && !strings.Contains(err.Error(), "publish to grouped") {
			t.Fatalf("Publish to two topics, the second deleted = %v, want an error that names that", err)
		}
		return err == nil
	})
	until(t, "the message of that topic", func() bool {
		select {
		case id := <-got:
			return id == "b"
		default:
			return false
		}
	})
}

func TestMandatory(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	o := options()
	o.Mandatory = true
	b := open(t, url, o)
	defer closeNow(t, b)
	if err := plain(t, url).ExchangeDeclare("t", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), messages("t", "m", 3)); !errors.Is(err, rabbitmq.ErrNoGroup) || !strings.Contains(err.Error(), `"m0"`) {
		t.Errorf("Publish to a topic without groups with Mandatory = %v, want ErrNoGroup that names the first message", err)
	}
	easy := open(t, url, options())
	defer closeNow(t, easy)
	m := join(t, easy, driver.Subscription{Topic: "t", Group: "g"})
	if err := b.Publish(t.Context(), messages("t", "n", 3)); err != nil {
		t.Errorf("Publish to a topic with a group with Mandatory = %v, want nil", err)
	}
	if d := m.next(t); d.ID != "n0" {
		t.Errorf("got %s, want n0 and nothing of what was refused", d.ID)
	}
	err := b.Publish(t.Context(), append(messages("t", "o", 2), messages("u", "p", 2)...))
	partial, ok := errors.AsType[*driver.PartialError](err)
	if !ok || partial.Sent != 2 || !errors.Is(err, rabbitmq.ErrNoGroup) {
		t.Errorf("Publish to topics with and without a group = %v, want a PartialError with Sent 2 and ErrNoGroup", err)
	}
}

// TestWhatServersWouldNotTake is refused before anything is sent: the server would end the
// connection.
func TestWhatServersWouldNotTake(t *testing.T) {
	t.Parallel()
	b := open(t, servertest.VHost(t), options())
	defer closeNow(t, b)
	for _, c := range []struct {
		name, value string
		want        error
	}{
		{"big", strings.Repeat("v", 200<<10), driver.ErrTooLarge},
		{strings.Repeat("n", 256), "", driver.ErrInvalid},
		{"ce-" + strings.Repeat("n", 250), "", driver.ErrInvalid},
		{"x-death", "", driver.ErrInvalid},
		{"x-delivery-count", "1", driver.ErrInvalid},
		{"x-first-death-queue", "q", driver.ErrInvalid},
	} {
		batch := messages("t", "m", 2)
		batch[1].Headers = driver.Headers{{Name: c.name, Value: c.value}}
		if err := b.Publish(t.Context(), batch); !errors.Is(err, c.want) || !strings.Contains(err.Error(), `"m1"`) {
			t.Errorf("Publish with a header %.20s of %d bytes = %v, want %v that names the message", c.name, len(c.value), err, c.want)
		}
	}
	if err := b.Publish(t.Context(), messages("t", "m", 2)); err != nil {
		t.Errorf("Publish afterwards = %v, want nil", err)
	}
	large := messages("t", "large", 1)
	for i := range 100 { // about 110 KiB: what fits has to get through
		large[0].Headers = append(large[0].Headers, driver.Header{Name: fmt.Sprintf("ce-h%02d", i), Value: strings.Repeat("v", 1100)})
	}
	if err := b.Publish(t.Context(), large); err != nil {
		t.Errorf("Publish with 110 KiB of headers = %v, want nil", err)
	}
}
