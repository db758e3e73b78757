package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/kaptar/kaptar/messaging/driver"
)

func testBytesSurvive(e *env) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	headers := map[string]string{
		driver.HeaderID: "a b%20c", driver.HeaderType: "order.placed.v1", driver.HeaderSubject: "  Ödön; 50%, \"x\"\t",
		driver.HeaderContentType: "application/json; charset=utf-8",
		driver.HeaderTraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"ce-lines":               "one\r\ntwo\x00", "ce-empty": "", "x_y-1": "🐝",
	}
	want := []driver.Message{
		{ID: "nil", Topic: e.topic},
		{ID: "empty", Topic: e.topic, Key: "", Headers: driver.HeadersOf(map[string]string{}), Data: []byte{}},
		{ID: "all bytes", Topic: e.topic, Key: "key: with spaces, é and\n%0A", Headers: driver.HeadersOf(headers), Data: every},
		{ID: "id é %41", Topic: e.topic, Key: strings.Repeat("k", 300), Data: []byte("NATS/1.0\r\n\r\n")},
		{ID: strings.Repeat("i", 255), Topic: e.topic, Key: " ", Headers: driver.HeadersOf(map[string]string{"a": " "}), Data: []byte{0}},
	}
	e.publish(want...)
	got := e.subscribe("g").wait(len(want))
	for _, w := range want { // by id: the keys differ, so the order may
		i := slices.IndexFunc(got, func(d driver.Delivery) bool { return d.ID == w.ID })
		if i < 0 {
			e.Errorf("message %q is not among %q", w.ID, ids(got))
			continue
		}
		g := got[i]
		if g.Topic != w.Topic || g.Key != w.Key || !slices.Equal(g.Headers, w.Headers) || !bytes.Equal(g.Data, w.Data) {
			e.Errorf("message %q arrived as\n%+v, want\n%+v", w.ID, g.Message, w)
		}
	}
}

func testLargestMessage(e *env) {
	m := e.msg("large", "k")
	m.Data = make([]byte, driver.MaxSize-4<<10) // the rest is for the broker's own headers
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(m.Data); err != nil {
		e.Fatal(err)
	}
	e.publish(m)
	if got := e.subscribe("g").wait(1)[0]; !bytes.Equal(got.Data, m.Data) {
		e.Errorf("%d random bytes arrived changed, as %d bytes", len(m.Data), len(got.Data))
	}
}

func testRefusedBatchStoresNothing(e *env) {
	huge := map[string]string{"a": strings.Repeat("h", driver.MaxSize)}
	ofTwoLines := driver.Headers{{Name: driver.HeaderContentType, Value: "a\nb"}}
	bad := []struct {
		name string
		msg  driver.Message
		want error
	}{
		{"too much data", driver.Message{ID: "x", Topic: e.topic, Data: make([]byte, driver.MaxSize+1)}, driver.ErrTooLarge},
		{"too much header", driver.Message{ID: "x", Topic: e.topic, Headers: driver.HeadersOf(huge)}, driver.ErrTooLarge},
		{"no id", driver.Message{Topic: e.topic}, driver.ErrInvalid},
		{"id with line feed", driver.Message{ID: "a\nb", Topic: e.topic}, driver.ErrInvalid},
		{"no topic", driver.Message{ID: "x"}, driver.ErrInvalid},
		{"topic with wildcard", driver.Message{ID: "x", Topic: "a.>"}, driver.ErrInvalid},
		{"key that is not UTF-8", driver.Message{ID: "x", Topic: e.topic, Key: "\xff"}, driver.ErrInvalid},
		{"header name in capitals", driver.Message{ID: "x", Topic: e.topic, Headers: driver.Headers{{Name: "Ce-Id", Value: "x"}}}, driver.ErrInvalid},
		{"content type of two lines", driver.Message{ID: "x", Topic: e.topic, Headers: ofTwoLines}, driver.ErrInvalid},
	}
	for i, c := range bad {
		for _, size := range []int{1, 30} {
			batch := e.msgs(fmt.Sprint("no", i, "-"), size)
			err := e.Broker.Publish(e.Context(), append(batch, c.msg, e.msg(fmt.Sprint("no", i, "last"), "k")))
			if !errors.Is(err, c.want) {
				e.Errorf("Publish of a batch with %s = %v, want %v", c.name, err, c.want)
			}
		}
	}
	e.publish(e.msg("marker", "k"))
	e.same("after refused batches the group", e.subscribe("g").wait(1), "marker")
}

// testBatchIsOrdered has batches of all sizes, since drivers send small and large ones by different
// means.
func testBatchIsOrdered(e *env) {
	keys := []string{"", "a", "b", "c", "d"}
	want := make(map[string][]string)
	n := 0
	for _, size := range []int{1, 2, 7, 15, 16, 17, 100, 501} {
		batch := make([]driver.Message, size)
		for i := range batch {
			key := keys[n*n%len(keys)]
			batch[i] = e.msg(fmt.Sprint("m", n), key)
			want[key] = append(want[key], batch[i].ID)
			n++
		}
		e.publish(batch...)
	}
	got := make(map[string][]string)
	for _, d := range e.subscribe("g").wait(n) {
		got[d.Key] = append(got[d.Key], d.ID)
	}
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			e.Errorf("key %q came as %v, want %v", key, got[key], want[key])
		}
	}
}

func testEmptyBatch(e *env) {
	if err := e.Broker.Publish(e.Context(), nil); err != nil {
		e.Errorf("Publish of nothing = %v, want nil", err)
	}
}

func testSameIDOnce(e *env) {
	e.publish(e.msg("a", "k"))
	e.publish(e.msg("a", "k"))
	e.publish(e.msg("b", "k"), e.msg("a", "k"), e.msg("b", "k"), e.msg("c", "k"))
	all := e.msgs("m", 40)
	e.publish(all[:20]...)
	e.publish(all...) // half of it is known
	e.publish(all...) // all of it is known
	e.publish(e.msg("marker", "k"))
	want := append([]string{"a", "b", "c"}, append(sent(all), "marker")...)
	e.same("a group that is to see each id once", e.subscribe("g").sees("marker"), want...)
}

func testConcurrentPublishers(e *env) {
	const publishers, rounds = 8, 12
	m := e.subscribe("g")
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			key := fmt.Sprint("p", p)
			for r := range rounds {
				batch := make([]driver.Message, 1+r*3)
				for i := range batch {
					batch[i] = e.msg(fmt.Sprintf("%s-%03d-%03d", key, r, i), key)
				}
				if err := e.Broker.Publish(e.Context(), batch); err != nil {
					e.Errorf("Publish of publisher %d, round %d = %v, want nil", p, r, err)
				}
			}
		})
	}
	wg.Wait()
	total := publishers * rounds * (2 + (rounds-1)*3) / 2
	got := make(map[string][]string)
	for _, d := range m.wait(total) {
		got[d.Key] = append(got[d.Key], d.ID)
	}
	for key, list := range got {
		if len(list) != total/publishers {
			e.Errorf("key %s came %d times, want %d", key, len(list), total/publishers)
		}
		if e.Ordered && !slices.IsSorted(list) {
			e.Errorf("key %s came out of order: %v", key, list)
		}
	}
}

func testPublishHonoursContext(e *env) {
	ctx, cancel := context.WithCancel(e.Context())
	cancel()
	for _, n := range []int{1, 30} {
		if err := e.Broker.Publish(ctx, e.msgs("m", n)); !errors.Is(err, context.Canceled) {
			e.Errorf("Publish of %d messages with a cancelled context = %v, want context.Canceled", n, err)
		}
	}
}
