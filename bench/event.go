package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
)

const (
	bodySize    = 200
	eventType   = "bench.event.v1"
	contentType = "application/json"
	inFlight    = 512 // events that a consumer has on their way at most
)

// An event is what both sides publish, each in its own library's form.
type event struct {
	id, key string
	data    []byte
}

// A client is one side of a comparison.
type client interface {
	// prepare makes a topic, and whatever has to be there before its first event.
	prepare(ctx context.Context, topic string) error
	// publisher returns what the i-th goroutine publishes with. It returns when all are stored.
	publisher(topic string, i int) (func(ctx context.Context, events []event) error, error)
	// consume hands n events to handle and acknowledges each afterwards. It returns when the server
	// was told. handle may be called from several goroutines.
	consume(ctx context.Context, topic string, n int, handle func(id, key string, data []byte)) error
	close()
}

// bodies are JSON documents of bodySize that differ, as a broker or client may compress.
func bodies() [][]byte {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same in every run
	list := make([][]byte, 64)
	for i := range list {
		text := make([]byte, 150)
		for j := range text {
			text[j] = letters[random.IntN(len(letters))]
		}
		body := fmt.Appendf(nil, `{"order":"%08d","amount":%6d,"note":"%s"`, i, random.IntN(100_000), text)
		for len(body) < bodySize-1 {
			body = append(body, ' ')
		}
		list[i] = append(body[:bodySize-1], '}')
	}
	return list
}

// A source makes events with ids of its own.
type source struct {
	name   string
	bodies [][]byte
	keys   []string
	n      int
}

func newSource(name string) *source {
	s := &source{name: name, bodies: bodies()}
	for i := range 100 {
		s.keys = append(s.keys, "customer-"+strconv.Itoa(i))
	}
	return s
}

// fill overwrites the list with the next events.
func (s *source) fill(list []event) {
	for i := range list {
		list[i] = event{id: s.name + strconv.Itoa(1_000_000+s.n), key: s.keys[s.n%len(s.keys)], data: s.bodies[s.n%len(s.bodies)]}
		s.n++
	}
}
