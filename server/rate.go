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

// RateOptions say how many requests a client may send. The zero value lets all through.
type RateOptions struct {
	// Rate is how many requests one client may send in a second, on average; 0 or less means any
	// number. Burst is how many at once after a pause; default: those of two seconds.
	Rate  float64
	Burst int

	// Key names the client of a request; "" is never refused. Default: its address, of IPv6 the /64.
	Key func(*http.Request) string
	// ForwardedFrom are the proxies whose X-Forwarded-For names the client; nil means none.
	ForwardedFrom Peers

	// Counter counts for all instances together, as cache.NewCounter does in Redis. While it fails,
	// and by default, each instance counts on its own.
	Counter Counter
}

// A Counter takes a request of the client key, one of which may come every so often, and burst of
// them at once. It returns 0, or without counting it after what time the next one may come. It may
// be called concurrently.
type Counter interface {
	Take(ctx context.Context, key string, every time.Duration, burst int) (wait time.Duration, err error)
}

// mostClients is how many clients are counted in the process; of more, those heard longest ago are
// forgotten, and may send a burst again.
const mostClients = 10_000

// RateLimit returns middleware that answers a client who sends too much with 429 and Retry-After. It
// is the generic cell rate algorithm (ITU-T I.371), which is a token bucket that keeps one time for
// each client.
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
				Detail: fmt.Sprintf("more than %g requests a second of one client", opts.Rate)})
		})
	}
}

// ClientAddress names the client of r by its address, of IPv6 the /64. It is the last one on the way
// that is none of proxies, which are believed what they say in X-Forwarded-For; a caller within the
// process is believed too. Nil are no proxies. It is "" for a caller within the process that says nothing.
func ClientAddress(r *http.Request, proxies Peers) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	ip, inProcess := at.Addr(), err != nil
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0 && (inProcess || len(proxies) > 0 && proxies.Has(netip.AddrPortFrom(ip, 0).String())); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break // it is not what a proxy writes
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

// A bucket is one client: the time at which all that it has sent would have been due.
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
