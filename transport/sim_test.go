package transport_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// A simServer is a server of a simulated network, in a synctest bubble: it serves some requests at
// a time, each for an exponentially distributed time, and lets the others queue.
type simServer struct {
	slots    chan struct{}  // one for each request that is served at the same time
	mean     time.Duration  // of the time that a request takes
	stale    bool           // serves requests whose caller has given up
	real     *server.Server // in place of slots and mean; nil for none
	attempts atomic.Int64   // that came here, probes of health not counted
	limit    int            // of the real server; see server.Limit
	paused   atomic.Int64   // until when nothing moves, as after SIGSTOP, in Unix nanoseconds

	// fault answers in place of the server, which serves what it has no answer and no error for; nil
	// when nothing is wrong.
	fault atomic.Pointer[func(*http.Request) (*http.Response, error)]
}

// A simulation is servers and the clients that call them, each client with its own view.
type simulation struct {
	servers []*simServer
	clients []*transport.Transport
	working sync.WaitGroup // what the servers do

	mu    sync.Mutex
	draws *rand.Rand // arrivals and times of service; the balancer has its own
	calls []simCall
}

// A simCall is what a caller saw.
type simCall struct {
	began, took time.Duration // began: since the simulation began
	server      int           // that answered
	ok          bool
	err         error
}

const (
	simURL  = "http://jobs/"
	simSeed = 60
)

// simulate makes n servers with 4 slots and 10 ms for each request, and their clients. The test must
// be in a synctest bubble.
func simulate(t *testing.T, n, clients int, set transport.Settings) *simulation {
	t.Helper()
	s := &simulation{draws: rand.New(rand.NewPCG(simSeed, uint64(n)))}
	var list []discovery.Instance
	for i := range n {
		s.servers = append(s.servers, &simServer{slots: make(chan struct{}, 4), mean: 10 * time.Millisecond})
		list = append(list, discovery.Instance{HTTP: "s" + strconv.Itoa(i) + ":80"})
	}
	for range clients {
		s.client(t, discovery.NewStatic(map[string][]discovery.Instance{"jobs": list}), set)
	}
	return s
}

func (s *simulation) client(t *testing.T, known discovery.Resolver, set transport.Settings) {
	t.Helper()
	c := transport.New(&transport.Options{Resolver: known, Base: s, Default: set})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s.clients = append(s.clients, c)
}

// RoundTrip is the network: the address "s3:80" is server 3. Who gives up is gone at once, but
// what he asked for stays with the server.
func (s *simulation) RoundTrip(r *http.Request) (*http.Response, error) {
	digits, _, _ := strings.Cut(r.URL.Host[1:], ":")
	i, err := strconv.Atoi(digits)
	if err != nil {
		return nil, err
	}
	srv := s.servers[i]
	if r.URL.Path != "/readyz" {
		srv.attempts.Add(1)
	}
	if f := srv.fault.Load(); f != nil {
		if resp, err := (*f)(r); resp != nil || err != nil {
			return resp, err
		}
	}
	type result struct {
		status int
		header http.Header
	}
	answered := make(chan result, 1)
	s.working.Go(func() {
		status, header := srv.serve(r, s.draw)
		answered <- result{status, header}
	})
	select {
	case a := <-answered:
		a.header.Set("Server", digits)
		return simAnswer(r, a.status, a.header), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func simAnswer(r *http.Request, status int, header http.Header) *http.Response {
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: header, Request: r,
		Body: io.NopCloser(strings.NewReader("body")), ContentLength: 4,
	}
}

// draw returns a time with an exponential distribution.
func (s *simulation) draw(mean time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.draws.ExpFloat64() * float64(mean))
}

// serves puts a real server in place of the slots, with one route.
func (s *simServer) serves(t testing.TB, h http.HandlerFunc) {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Options{
		Service: "jobs", Log: telemetry.LogOptions{Output: io.Discard, Level: slog.LevelError},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.real = server.New(server.Options{Telemetry: tel, HTTP: "127.0.0.1:0", Limit: server.Limit{Max: s.limit}})
	s.real.HandleFunc("/", h)
}

// limited puts a real server in front of the slots: its chain decides what comes to the handler, which
// takes a slot as it would take a connection of a pool, and gives up when its context ends.
func (s *simServer) limited(t testing.TB, draw func(time.Duration) time.Duration) {
	t.Helper()
	s.serves(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-r.Context().Done():
			return
		}
		s.awake()
		steady.Sleep(context.Background(), draw(s.mean))
		s.awake()
		w.WriteHeader(http.StatusOK)
	})
}

// serve returns status and header of the answer. It sleeps in a synctest bubble.
func (s *simServer) serve(r *http.Request, draw func(time.Duration) time.Duration) (int, http.Header) {
	s.awake()
	began := time.Now()
	if r.URL.Path == "/readyz" {
		return http.StatusOK, http.Header{}
	}
	if s.real != nil {
		w := &simWriter{header: http.Header{}, status: http.StatusOK}
		s.real.Handler().ServeHTTP(w, r.WithContext(context.Background()))
		s.awake()
		return w.status, w.header
	}
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	s.awake()
	left, ok := deadline.Parse(r.Header.Get(deadline.Header))
	if ok && !s.stale && time.Since(began) > left {
		return http.StatusGatewayTimeout, http.Header{}
	}
	time.Sleep(draw(s.mean))
	s.awake()
	return http.StatusOK, http.Header{}
}

// awake returns when the server is not paused. It sleeps in a synctest bubble.
func (s *simServer) awake() { time.Sleep(time.Until(time.Unix(0, s.paused.Load()))) }

func (s *simServer) pause(d time.Duration) { s.paused.Store(time.Now().Add(d).UnixNano()) }

// breaks gives the server a fault; nil mends it.
func (s *simServer) breaks(f func(*http.Request) (*http.Response, error)) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// dead refuses each connection after a millisecond, in a synctest bubble.
func dead(*http.Request) (*http.Response, error) {
	time.Sleep(time.Millisecond)
	return nil, errors.New("connection refused")
}

// blackHole accepts everything and answers nothing.
func blackHole(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// flaky refuses one request of so many, after a millisecond.
func flaky(one int64) func(*http.Request) (*http.Response, error) {
	var seen atomic.Int64
	return func(r *http.Request) (*http.Response, error) {
		if seen.Add(1)%one == 0 {
			return dead(r)
		}
		return nil, nil
	}
}

// simWriter takes the answer of a real server's handler.
type simWriter struct {
	header http.Header
	status int
}

func (w *simWriter) Header() http.Header         { return w.header }
func (w *simWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *simWriter) WriteHeader(status int)      { w.status = status }

// load makes Poisson calls with one method for a while, and calls at when a time has come. It
// returns when the servers have done all work.
func (s *simulation) load(t testing.TB, method string, perSecond float64, long time.Duration, at map[time.Duration]func()) {
	t.Helper()
	var calls sync.WaitGroup
	origin := time.Now()
	for when, do := range at {
		calls.Go(func() {
			steady.Sleep(t.Context(), when)
			do()
		})
	}
	next := time.Duration(0)
	for n := 0; next < long; n++ {
		steady.Sleep(t.Context(), next-time.Since(origin))
		began, client := time.Since(origin), s.clients[n%len(s.clients)]
		calls.Go(func() { s.call(t, client, method, origin, began) })
		next += s.draw(time.Duration(float64(time.Second) / perSecond))
	}
	calls.Wait()
	s.working.Wait()
}

// call makes one call and notes what came of it.
func (s *simulation) call(t testing.TB, client *transport.Transport, method string, origin time.Time, began time.Duration) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, simURL, nil)
	if err != nil {
		t.Error(err)
		return
	}
	c := simCall{began: began}
	resp, err := client.RoundTrip(req)
	if c.err = err; err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		c.ok = resp.StatusCode == http.StatusOK
		c.server, _ = strconv.Atoi(resp.Header.Get("Server"))
	}
	c.took = time.Since(origin) - began
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// p99 is the time within which 99 of 100 calls were answered that began after a time.
func (s *simulation) p99(after time.Duration) time.Duration {
	var took []time.Duration
	for _, c := range s.calls {
		if c.began >= after {
			took = append(took, c.took)
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// failed is how many callers saw an error, and what the last one was.
func (s *simulation) failed() (n int, last error) {
	for _, c := range s.calls {
		if !c.ok {
			n, last = n+1, c.err
		}
	}
	return n, last
}

// goodput is how many calls a second were answered well between two times, and how many were made.
func (s *simulation) goodput(from, to time.Duration) (good, made float64) {
	for _, c := range s.calls {
		if c.began >= from && c.began < to {
			made++
		}
		if end := c.began + c.took; c.ok && end >= from && end < to {
			good++
		}
	}
	return good / (to - from).Seconds(), made / (to - from).Seconds()
}

// amplification is how many attempts came to the servers for each call.
func (s *simulation) amplification() float64 {
	var attempts int64
	for _, srv := range s.servers {
		attempts += srv.attempts.Load()
	}
	return float64(attempts) / float64(len(s.calls))
}
