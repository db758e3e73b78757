package rabbitmq

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestReturnedAtTheEnd: the library closes the list of what came back together with the connection,
// which can break between the last confirm and the look at the list.
func TestReturnedAtTheEnd(t *testing.T) {
	t.Parallel()
	list := make([]outgoing, 4)
	for i := range list {
		list[i] = outgoing{exchange: "t", msg: amqp.Publishing{MessageId: string(rune('a' + i))}}
	}
	for _, c := range []struct {
		back []string
		want int
	}{{nil, 4}, {[]string{"c"}, 2}, {[]string{"c", "b", "d"}, 1}, {[]string{"z"}, 4}} {
		ch := &channel{returned: make(chan amqp.Return, window)}
		for _, id := range c.back {
			ch.returned <- amqp.Return{Exchange: "t", MessageId: id}
		}
		close(ch.returned)
		if got := ch.firstReturned(list); got != c.want {
			t.Errorf("after %v came back, the first is %d, want %d", c.back, got, c.want)
		}
	}
}
