package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var b driver.Broker = memory.New()

	err := b.Publish(ctx, []driver.Message{
		{ID: "1", Topic: "order.placed.v1", Key: "order-7", Data: []byte(`{"id":7}`)},
		{ID: "2", Topic: "order.placed.v1", Key: "order-8", Data: []byte(`{"id":8}`)},
	})
	fmt.Println("published:", err)

	sub := driver.Subscription{Topic: "order.placed.v1", Group: "mail-service", From: driver.FromBeginning}
	err = b.Subscribe(ctx, sub, func(d driver.Delivery) {
		fmt.Printf("%s, attempt %d: %s\n", d.Key, d.Attempt, d.Data)
		if err := d.Ack(ctx); err != nil {
			fmt.Println(err)
		}
		if d.ID == "2" {
			cancel()
		}
	})
	fmt.Println("subscribed:", err)
	// Output:
	// published: <nil>
	// order-7, attempt 1: {"id":7}
	// order-8, attempt 1: {"id":8}
	// subscribed: <nil>
}

func ExamplePartialError() {
	err := fmt.Errorf("relay: %w", &driver.PartialError{Sent: 3, Err: io.ErrUnexpectedEOF})
	if partial, ok := errors.AsType[*driver.PartialError](err); ok {
		fmt.Println(partial.Sent, "messages can be forgotten")
	}
	// Output: 3 messages can be forgotten
}

// with returns m's headers with one more, or with another value.
func with(m *driver.Message, name, value string) driver.Headers {
	h := append(slices.Clip(m.Headers), driver.Header{Name: name, Value: value})
	h.Sort()
	return h
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := driver.Headers{{Name: "b", Value: "1"}, {Name: "c", Value: "2"}, {Name: "a", Value: "3"}, {Name: "b", Value: "4"}, {Name: "b", Value: "5"}}
	h.Sort()
	want := driver.Headers{{Name: "a", Value: "3"}, {Name: "b", Value: "5"}, {Name: "c", Value: "2"}}
	if !slices.Equal(h, want) || h.Get("b") != "5" || h.Get("d") != "" {
		t.Errorf("sorted headers are %v, want %v", h, want)
	}
	if again := driver.HeadersOf(h.Map()); !slices.Equal(again, want) {
		t.Errorf("headers through a map are %v, want %v", again, want)
	}
	h.Set("bb", "4")
	h.Set("a", "6")
	want = driver.Headers{{Name: "a", Value: "6"}, {Name: "b", Value: "5"}, {Name: "bb", Value: "4"}, {Name: "c", Value: "2"}}
	if !slices.Equal(h, want) || !slices.Equal(h.Keys(), []string{"a", "b", "bb", "c"}) {
		t.Errorf("after Set: %v with keys %v, want %v", h, h.Keys(), want)
	}
	if driver.HeadersOf(nil) != nil {
		t.Error("headers of an empty map are not nil")
	}
}

func TestMessageValidate(t *testing.T) {
	t.Parallel()
	good := func() driver.Message {
		return driver.Message{ID: "id", Topic: "order.placed_x-1.v1", Key: "ö", Headers: driver.HeadersOf(map[string]string{"ce-id": "id", "content-type": "a/b; c=d"}), Data: []byte("x")}
	}
	if m := good(); m.Validate() != nil {
		t.Errorf("Validate(%+v) = %v, want nil", m, m.Validate())
	}
	for name, c := range map[string]struct {
		change func(*driver.Message)
		want   error
		text   string
	}{
		"no id":             {func(m *driver.Message) { m.ID = "" }, driver.ErrInvalid, `message id ""`},
		"long id":           {func(m *driver.Message) { m.ID = strings.Repeat("x", 256) }, driver.ErrInvalid, "255"},
		"id not UTF-8":      {func(m *driver.Message) { m.ID = "\xff" }, driver.ErrInvalid, "id"},
		"id with newline":   {func(m *driver.Message) { m.ID = "a\n" }, driver.ErrInvalid, "control"},
		"long topic":        {func(m *driver.Message) { m.Topic = strings.Repeat("x", 201) }, driver.ErrInvalid, "200"},
		"topic from _":      {func(m *driver.Message) { m.Topic = "_a" }, driver.ErrInvalid, `topic "_a"`},
		"key not UTF-8":     {func(m *driver.Message) { m.Key = "\xc3" }, driver.ErrInvalid, "key"},
		"header capitals":   {func(m *driver.Message) { m.Headers = with(m, "A", "") }, driver.ErrInvalid, `header name "A"`},
		"header no name":    {func(m *driver.Message) { m.Headers = with(m, "", "") }, driver.ErrInvalid, `header name ""`},
		"header not UTF-8":  {func(m *driver.Message) { m.Headers = with(m, "a", "\xff") }, driver.ErrInvalid, "header a"},
		"type with newline": {func(m *driver.Message) { m.Headers = with(m, "content-type", "a\r\nb") }, driver.ErrInvalid, "content-type"},
		"state with spaces": {func(m *driver.Message) { m.Headers = with(m, "tracestate", " a") }, driver.ErrInvalid, "tracestate"},
		"headers unsorted":  {func(m *driver.Message) { slices.Reverse(m.Headers) }, driver.ErrInvalid, `header "ce-id" after "content-type"`},
		"header twice":      {func(m *driver.Message) { m.Headers = append(m.Headers, m.Headers[1]) }, driver.ErrInvalid, `each once`},
		"one byte too much": {func(m *driver.Message) { m.Data = make([]byte, driver.MaxSize-m.Size()+2) }, driver.ErrTooLarge, "1048577 bytes"},
	} {
		m := good()
		c.change(&m)
		if err := m.Validate(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: Validate = %v, want %v with %q", name, err, c.want, c.text)
		}
	}
	m := good()
	m.Data = make([]byte, driver.MaxSize-m.Size()+1)
	if err := m.Validate(); m.Size() != driver.MaxSize || err != nil {
		t.Errorf("Validate of %d bytes = %v, want nil", m.Size(), err)
	}
	if err := driver.ValidateAll([]driver.Message{good(), {}}); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("ValidateAll with a bad second message = %v, want driver.ErrInvalid", err)
	}
}

func TestSubscriptionValidate(t *testing.T) {
	t.Parallel()
	err := driver.Subscription{Topic: "t", Group: "g"}.Validate()
	if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), "FromNow or FromBeginning") {
		t.Errorf("Validate without a start = %v, want driver.ErrInvalid that says what to set", err)
	}
	if got := fmt.Sprint(driver.FromNow, driver.FromBeginning, driver.Start(0)); got != "from now from the beginning Start(0)" {
		t.Errorf("starts print as %q", got)
	}
}

func TestPartialError(t *testing.T) {
	t.Parallel()
	err := error(&driver.PartialError{Sent: 3, Err: io.EOF})
	if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "first 3 messages") {
		t.Errorf("PartialError = %v, want EOF in its chain and the count", err)
	}
}

// FuzzHeaders: what is read from JSON is in order, each name once, and survives being written.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte(`{"ce-id":"1","a":"\u0000","b":"\ud800"}`))
	f.Add([]byte(`{"a":"1","a":"2","A":"3"}`))
	f.Add([]byte(`{"a":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, object []byte) {
		var h, again driver.Headers
		if h.UnmarshalJSON(object) != nil {
			return
		}
		for i := 1; i < len(h); i++ {
			if h[i-1].Name >= h[i].Name {
				t.Fatalf("headers of %q are %v, want ascending names", object, h)
			}
		}
		text, err := h.MarshalJSON()
		if err != nil || again.UnmarshalJSON(text) != nil || !slices.Equal(h, again) {
			t.Fatalf("headers %v come back as %v by way of %s, %v", h, again, text, err)
		}
	})
}
