package server

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RateOptions configure RateLimit. The zero value has no limit.
type RateOptions struct {
	// Rate is how many requests per second a client may send on average; 0 or less means no limit.
	// Burst is how many it may send at once after a pause; default 2 × Rate, rounded up.
	Rate  float64
	Burst int

	// Key returns the client of a request; requests with "" are not limited. Default: ClientAddress.
	Key func(*http.Request) string
	// ForwardedFrom are the proxies whose X-Forwarded-For is trusted; nil means none.
	ForwardedFrom Peers

	// Counter counts for all instances together, as cache.NewCounter does in Redis. With nil, and
	// while the Counter fails, each instance counts by itself.
	Counter Counter
}

// A Counter counts the requests of clients, of which each may send one per interval every, and
// burst at once. Take counts a request of the client key and returns 0. If the request exceeds the
// limit it is not counted, and Take returns the time until the next one is allowed. Take may be
// called concurrently.
type Counter interface {
	Take(ctx context.Context, key string, every time.Duration, burst int) (wait time.Duration, err error)
}

// mostClients is how many clients are counted in the process. Beyond that the least recently seen
// client is forgotten, and may send a burst again.
const mostClients = 10_000

// RateLimit returns middleware that answers requests beyond the limit with 429 and Retry-After. It
// uses the generic cell rate algorithm (ITU-T I.371), a token bucket that stores one time a client.
func RateLimit(opts RateOptions) func(http.Handler) http.Handler {
	if opts.Rate <= 0 {
		return func(h http.Handler) http.Handler { return h }
	}
	every := time.Duration(float64(time.Second) / opts.Rate)
	burst := cmp.Or(opts.Burst, int(math.Ceil(2*opts.Rate)))
	if opts.Key == nil {
		opts.Key = func(r *http.Request) string { return ClientAddress(r, opts.ForwardedFrom) }
	}
	own := &counter{known: map[string]*list.Element{}}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := opts.Key(r)
			if key == "" {
				h.ServeHTTP(w, r)
				return
			}
			wait, err := time.Duration(0), error(nil)
			if opts.Counter != nil {
				wait, err = opts.Counter.Take(r.Context(), key, every, burst)
			}
			if opts.Counter == nil || err != nil {
				wait = own.take(time.Now(), key, every, burst)
			}
			if wait <= 0 {
				h.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
			WriteProblem(w, r, Problem{Status: http.StatusTooManyRequests,
				Detail: fmt.Sprintf("more than %g requests a second from one client", opts.Rate)})
		})
	}
}

// ClientAddress returns the client of r: its IPv4 address, or the /64 of its IPv6 address. It
// follows X-Forwarded-For from the right as long as the sender is one of proxies or a caller within
// the process. Nil means no proxies. It returns "" for a caller within the process without the
// header.
func ClientAddress(r *http.Request, proxies Peers) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	ip, inProcess := at.Addr(), err != nil
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0 && (inProcess || len(proxies) > 0 && proxies.Has(netip.AddrPortFrom(ip, 0).String())); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break // a proxy writes addresses only
		}
		ip, inProcess = hop, false
	}
	if !ip.IsValid() {
		return ""
	}
	client := clientOf(ip)
	if client.IsSingleIP() {
		return client.Addr().String()
	}
	return client.String()
}

// counter counts in the process.
type counter struct {
	mu     sync.Mutex
	known  map[string]*list.Element // of bucket
	recent list.List                // those heard last in front
}

// A bucket is one client, and the time when all its requests so far would have been due at the
// rate.
type bucket struct {
	key string
	due time.Time
}

func (c *counter) take(now time.Time, key string, every time.Duration, burst int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[key]
	if e == nil {
		if c.recent.Len() >= mostClients {
			if old, ok := c.recent.Remove(c.recent.Back()).(*bucket); ok {
				delete(c.known, old.key)
			}
		}
		e = c.recent.PushFront(&bucket{key: key})
		c.known[key] = e
	}
	c.recent.MoveToFront(e)
	b, _ := e.Value.(*bucket)
	due := now
	if b.due.After(now) {
		due = b.due
	}
	due = due.Add(every)
	if wait := due.Sub(now) - time.Duration(burst)*every; wait > 0 {
		return wait
	}
	b.due = due
	return 0
}
