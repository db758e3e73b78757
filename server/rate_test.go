package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/server"
)

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := server.RateLimit(server.RateOptions{Rate: 2, Burst: 3})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		send := func(from string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
			r.RemoteAddr = from
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		// passed is how many of 10 at once get through.
		passed := func(from string) (n int) {
			for range 10 {
				if send(from).Code == http.StatusOK {
					n++
				}
			}
			return n
		}
		if got := passed("10.0.0.1:1"); got != 3 {
			t.Errorf("%d of 10 at once, want the burst of 3", got)
		}
		if w := send("10.0.0.1:2"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
			t.Errorf("one more: %d %v, want 429 with Retry-After", w.Code, w.Header())
		}
		if got := passed("10.0.0.2:1"); got != 3 {
			t.Errorf("%d of 10 of another client, want 3", got)
		}
		time.Sleep(time.Second)
		if got := passed("10.0.0.1:3"); got != 2 {
			t.Errorf("%d of 10 a second later, want 2", got)
		}
		if a, b := passed("[2001:db8::1]:1"), passed("[2001:db8::ffff:2]:1"); a != 3 || b != 0 {
			t.Errorf("%d and %d of two addresses of one /64, want 3 and 0", a, b)
		}
		if got := passed("in-process"); got != 10 {
			t.Errorf("%d of 10 within the process, want all", got)
		}
	})
}

func TestRateLimitCountsSomeClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := server.RateLimit(server.RateOptions{Rate: 0.001, Burst: 1, Key: func(r *http.Request) string { return r.URL.Path }})(
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		send := func(path string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody))
			return w.Code
		}
		send("/first")
		for i := range 9_999 {
			send(fmt.Sprintf("/%d", i))
		}
		if got := send("/first"); got != http.StatusTooManyRequests {
			t.Errorf("with 10,000 clients the first gets %d, want 429", got)
		}
		send("/new")
		if got := send("/0"); got != http.StatusOK {
			t.Errorf("with one more, who was heard longest ago gets %d, want to be forgotten", got)
		}
	})
}

func TestRateLimitBehindAProxy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trusted   server.Peers
		forwarded [2]string // of two requests that a proxy at 10.0.0.1 sends
		second    int
	}{
		"the proxy is not known":     {nil, [2]string{"1.1.1.1", "2.2.2.2"}, 429},
		"other clients":              {prefixes("10.0.0.0/8"), [2]string{"1.1.1.1", "2.2.2.2"}, 200},
		"one client":                 {prefixes("10.0.0.0/8"), [2]string{"1.1.1.1", "1.1.1.1"}, 429},
		"one that makes others up":   {prefixes("10.0.0.0/8"), [2]string{"6.6.6.6, 1.1.1.1", "7.7.7.7, 1.1.1.1"}, 429},
		"behind two proxies":         {prefixes("10.0.0.0/8"), [2]string{"1.1.1.1, 10.0.0.2", "2.2.2.2, 10.0.0.2"}, 200},
		"what is no address at all":  {prefixes("10.0.0.0/8"), [2]string{"x", "y"}, 429},
		"none, as of a health check": {prefixes("10.0.0.0/8"), [2]string{"", ""}, 429},
	} {
		h := server.RateLimit(server.RateOptions{Rate: 0.001, Burst: 1, ForwardedFrom: tc.trusted})(
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		var last int
		for _, from := range tc.forwarded {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
			r.RemoteAddr = "10.0.0.1:1"
			r.Header.Set("X-Forwarded-For", from)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			last = w.Code
		}
		if last != tc.second {
			t.Errorf("%s: the second request gets %d, want %d", name, last, tc.second)
		}
	}
}

func prefixes(p string) server.Peers { return server.Peers{netip.MustParsePrefix(p)} }

// counterFunc stands for a counter that all instances share.
type counterFunc func(key string, every time.Duration, burst int) (time.Duration, error)

func (f counterFunc) Take(_ context.Context, key string, every time.Duration, burst int) (time.Duration, error) {
	return f(key, every, burst)
}

func TestRateLimitOfAllInstances(t *testing.T) {
	t.Parallel()
	var err error
	wait := 2500 * time.Millisecond
	h := server.RateLimit(server.RateOptions{Rate: 10, Burst: 1, Counter: counterFunc(func(key string, every time.Duration, burst int) (time.Duration, error) {
		if key != "192.0.2.1" || every != 100*time.Millisecond || burst != 1 {
			t.Errorf("asked for %s, %v, %d", key, every, burst)
		}
		return wait, err
	})})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	send := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody))
		return w
	}
	if w := send(); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "3" {
		t.Errorf("got %d %v, want 429 and Retry-After: 3", w.Code, w.Header())
	}
	err = errors.New("away")
	if w := send(); w.Code != http.StatusOK {
		t.Errorf("without the counter: %d, want 200 as this instance counts", w.Code)
	}
	if w := send(); w.Code != http.StatusTooManyRequests {
		t.Errorf("without the counter, one more: %d, want 429", w.Code)
	}
}
