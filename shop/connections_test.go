package main

import (
	"bufio"
	"flag"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

var connections = flag.Int("connections", 1000, "how many connections TestConnections holds open at the gateway; the issue is about 10000")

// TestConnections has another client hold many connections at the gateway of a split shop, which it
// leaves idle or half-way through a request. Meanwhile every good call is answered, through all
// services, and all the connections are closed in time.
func TestConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes all processors for some seconds")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the other client has addresses of loopback that only Linux has")
	}
	t.Parallel()
	f := newFlood(t, 10, "--split", "--demo", "--set", "limit.wait=4s")
	quiet, refused := f.reads(3 * time.Second)
	if refused > 0 {
		t.Fatalf("%d reads were refused before", refused)
	}
	for _, tc := range []struct {
		name, send string
		n          int
		in         time.Duration // when the server closes them, at the latest
		status     int           // of the answer, 0 for none
	}{
		{name: "idle", n: *connections, in: 5 * time.Second},
		{name: "half a header", send: "POST /v1/users HTTP/1.1\r\nHost: shop\r\nX-Half:", n: *connections, in: 5 * time.Second},
		{
			name: "half a body", send: "POST /v1/users HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
			n: *connections * 4 / 10, in: 5 * time.Second, status: http.StatusRequestTimeout,
		},
	} {
		t.Run(tc.name, func(t *testing.T) { //nolint:paralleltest // one after the other
			h := hold(f, tc.n, tc.send)
			arriving, refused := f.reads(dialTime)
			took, more := f.reads(tc.in - dialTime)
			refused += more
			lasted, answers, failed := h.wait()
			t.Logf("%d connections, cut after %v at most, answers %v, %d not made; reads' p99 %v while they came, then %v, %v before: %.1f times",
				tc.n, lasted.Round(time.Millisecond), answers, failed, p99(arriving), p99(took), p99(quiet), float64(p99(took))/float64(p99(quiet)))
			if refused > 0 || failed > 0 {
				t.Errorf("%d of %d reads were refused, %d connections not made, want none", refused, refused+len(arriving)+len(took), failed)
			}
			if n := answers[tc.status]; n < tc.n/2 || len(answers) > 2 || len(answers) == 2 && answers[0] == 0 {
				t.Errorf("answers %v, want %d, or none where there was no room", answers, tc.status)
			}
			if lasted > 4*tc.in { // else they would last for a minute
				t.Errorf("the last connection was closed after %v, want about %v", lasted, tc.in)
			}
		})
	}
	if after, refused := f.reads(time.Second); refused > 0 {
		t.Errorf("%d of %d reads were refused afterwards, want none", refused, refused+len(after))
	}
}

// dialTime is how long the other client takes to make its connections: all at once would measure what
// its own work takes from the processors.
const dialTime = 2 * time.Second

// held are connections of another client.
type held struct {
	all     sync.WaitGroup
	mu      sync.Mutex
	lasted  []time.Duration
	answers map[int]int // by status, 0 for none
	failed  int
}

// hold opens n connections to the gateway within dialTime, from addresses of its own, sends the same
// on each and reads from it until it ends.
func hold(f *flood, n int, send string) *held {
	h := &held{answers: map[int]int{}}
	begun := time.Now()
	for i := range n {
		h.all.Go(func() {
			<-time.After(time.Until(begun.Add(dialTime * time.Duration(i) / time.Duration(n))))
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%4))}, Timeout: time.Minute}
			conn, err := from.DialContext(f.Context(), "tcp", f.in.HTTP("gateway"))
			if err != nil {
				h.mu.Lock()
				h.failed++
				h.mu.Unlock()
				return
			}
			defer conn.Close()
			begun := time.Now()
			_ = conn.SetDeadline(begun.Add(time.Minute))
			_, _ = io.WriteString(conn, send)
			status := 0
			r := bufio.NewReaderSize(conn, 512)
			if resp, err := http.ReadResponse(r, nil); err == nil {
				status = resp.StatusCode
				_, _ = io.Copy(io.Discard, r)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.answers[status]++
			h.lasted = append(h.lasted, time.Since(begun))
		})
	}
	return h
}

// wait returns how long the connection lasted that was closed last, what was answered, and how many
// could not be made.
func (h *held) wait() (lasted time.Duration, answers map[int]int, failed int) {
	h.all.Wait()
	if len(h.lasted) > 0 {
		lasted = slices.Max(h.lasted)
	}
	return lasted, h.answers, h.failed
}
