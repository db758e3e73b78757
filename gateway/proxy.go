package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"

	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/transport"
)

// proxy forwards requests to service.
func (g *gateway) proxy(service string) http.Handler {
	return &httputil.ReverseProxy{
		Transport:  g.app.Client().Transport,
		BufferPool: &g.buffers,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", service, r.In.Host
			g.forward(r)
		},
		ModifyResponse: func(r *http.Response) error {
			cleanAnswer(r.Header, r.StatusCode)
			return complete(r)
		},
		ErrorLog: slog.NewLogLogger(g.app.Logger().Handler(), slog.LevelDebug), // the access log tells how an answer ended
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if !errors.Is(err, context.Canceled) {
				g.app.Logger().WarnContext(r.Context(), "not passed on", "target", service, "error", err)
			}
			server.WriteProblem(w, r, problemOf(w, service, err))
		},
	}
}

// forward completes a request that is forwarded. ReverseProxy has removed the hop-by-hop headers.
func (g *gateway) forward(r *httputil.ProxyRequest) {
	r.Out.Trailer = nil
	for _, name := range credentials {
		delete(r.Out.Header, name)
	}
	for _, name := range []string{"Content-Length", "Expect", "Traceparent", "Tracestate"} { // ours to say
		delete(r.Out.Header, name)
	}
	trusted := g.trusts(r.In)
	if trusted {
		r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	}
	r.SetXForwarded()
	if !trusted {
		return
	}
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := r.In.Header[name]; len(v) > 0 {
			r.Out.Header[name] = v
		}
	}
}

// complete reads the whole body of a short 5xx answer before it is forwarded. A service that ran
// into its deadline answers just before the gateway's own, and if its body comes too late the
// caller should get the gateway's problem and not a cut connection.
func complete(r *http.Response) error {
	if r.StatusCode < 500 || r.ContentLength <= 0 || r.ContentLength > 64<<10 {
		return nil
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_ = r.Body.Close() // was read
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

// cleanAnswer removes headers that are between services, or that nobody outside needs to know.
func cleanAnswer(h http.Header, status int) {
	for key := range h {
		switch name := http.CanonicalHeaderKey(key); {
		case name == limit.Header && status == http.StatusServiceUnavailable: // for limit.hold, which removes it
		case hasPrefix(name, "Kaptar-", "Access-Control-"), name == "Server", name == "X-Powered-By", name == "Via", name == "X-Request-Id":
			delete(h, key)
		}
	}
}

// problemOf returns the answer to the caller for a failed call to service.
func problemOf(w http.ResponseWriter, service string, err error) server.Problem {
	p := server.Problem{Status: http.StatusBadGateway, Detail: service + " could not be reached", Dependency: server.DependencyOf(err)}
	open, isOpen := errors.AsType[*transport.OpenError](err)
	switch {
	case isOpen:
		seconds := max(1, int(math.Ceil(open.RetryAfter.Seconds())))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		p.Status = http.StatusServiceUnavailable
		p.Detail = fmt.Sprintf("%s keeps failing and is not called for the next %d s", service, seconds)
	case errors.Is(err, transport.ErrNoInstances):
		w.Header().Set("Retry-After", "1")
		p.Status, p.Detail = http.StatusServiceUnavailable, service+" is not running"
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Detail = http.StatusGatewayTimeout, service+" did not answer in time"
	}
	return p
}

// buffers is ReverseProxy's pool of buffers for copying bodies.
type buffers struct{ pool sync.Pool }

type buffer [32 << 10]byte

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*buffer); ok {
		return p[:]
	}
	return new(buffer)[:]
}

func (b *buffers) Put(p []byte) { b.pool.Put((*buffer)(p)) }
