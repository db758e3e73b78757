package h1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestChange: the server sees the request as changed, and the request stays as it is.
func TestChange(t *testing.T) {
	t.Parallel()
	dialled := ""
	tr := New(&Options{Dial: func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		ours, theirs := net.Pipe()
		go func() {
			req, body, err := request(theirs)
			if err != nil {
				return
			}
			text := fmt.Sprint(req.Host, req.Header["Traceparent"], req.Header["X"], req.Header["Y"], body)
			fmt.Fprintf(theirs, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}()
		return ours, nil
	}})
	defer tr.CloseIdleConnections()
	own := &closing{Reader: strings.NewReader("other")}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://users/1", own)
	req.ContentLength = 5
	req.Header = http.Header{"Traceparent": {"theirs", "twice"}, "X": {"1", "2"}}
	change := &Change{
		Host: "10.0.0.1:80", Body: io.NopCloser(strings.NewReader("hello")),
		Header: [5]Field{{"Traceparent", "ours"}, {}, {"Y", "3"}},
	}
	resp, err := tr.Do(t.Context(), req, change)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != "users[ours] [1 2] [3]hello" || dialled != "10.0.0.1:80" {
		t.Errorf("the server saw %q at %s", got, dialled)
	}
	if resp.Request != req || len(req.Header) != 2 || len(req.Header["Traceparent"]) != 2 || own.closed != 0 {
		t.Error("the request was changed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Do(ctx, req, change); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the other context", err)
	}
	req.Header.Set("Expect", "100-continue")
	body := &closing{Reader: strings.NewReader("hello")}
	if _, err := tr.Do(t.Context(), req, &Change{Body: body}); !errors.Is(err, ErrNotLean) || body.closed != 0 {
		t.Errorf("got %v, closed %d times", err, body.closed)
	}
}
