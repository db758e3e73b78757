package gateway

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// guard is the outer part of the chain, from the check to the rate limit of clients.
func (g *gateway) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trusted := g.trusts(r)
		a := &answer{ResponseWriter: w, gateway: g, ctx: r.Context(), id: requestID(r), secure: r.TLS != nil}
		if p := g.check(r); p.Status != 0 {
			a.refuse(r, p)
			return
		}
		clean(r.Header, r.Method, trusted)
		a.secure = a.secure || trusted && r.Header.Get("X-Forwarded-Proto") == "https"
		a.personal = slices.ContainsFunc(credentials, func(name string) bool { return len(r.Header[name]) > 0 })
		r.Header["X-Request-Id"] = []string{a.id}
		w.Header()["X-Request-Id"] = r.Header["X-Request-Id"]
		if g.crossOrigin(a, r) {
			next.ServeHTTP(a, r)
		}
	})
}

// crossOrigin reports whether r may go on. Otherwise it has answered it.
func (g *gateway) crossOrigin(a *answer, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin != "" && slices.Contains(g.set.CORSOrigins, origin) {
		a.origin = origin
	}
	asked := r.Header.Get("Access-Control-Request-Method")
	if r.Method == http.MethodOptions && origin != "" && asked != "" {
		if a.origin == "" {
			a.refuse(r, server.Problem{Status: http.StatusForbidden, Detail: "cors_origins does not have the origin"})
			return false
		}
		h := a.Header()
		h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
		if names := r.Header.Get("Access-Control-Request-Headers"); isPlain(strings.NewReplacer(",", "", " ", "").Replace(names)) {
			h.Set("Access-Control-Allow-Headers", names)
		}
		h.Set("Access-Control-Max-Age", "7200")
		h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		a.WriteHeader(http.StatusNoContent)
		return false
	}
	asker := r
	upgrade, host := len(r.Header["Upgrade"]) > 0, r.Header.Get("X-Forwarded-Host") // which only our proxies can say now
	if upgrade || host != "" {
		as := *r
		if asker = &as; upgrade {
			as.Method = http.MethodPost // a WebSocket begins with GET, and no preflight asks first
		}
		if host != "" {
			as.Host, _, _ = strings.Cut(host, ",")
		}
	}
	if err := g.origins.Check(asker); err != nil {
		a.refuse(r, server.Problem{Status: http.StatusForbidden, Detail: "a page of another origin must not do this: cors_origins does not have it"})
		return false
	}
	return true
}

// defaults are headers that are added to every answer without them.
var defaults = map[string][]string{
	"X-Content-Type-Options":     {"nosniff"},
	"X-Frame-Options":            {"DENY"},
	"Referrer-Policy":            {"no-referrer"},
	"Content-Security-Policy":    {"default-src 'none'; frame-ancestors 'none'"},
	"Cross-Origin-Opener-Policy": {"same-origin"},
}

// credentials are the headers that identify the caller. They are not forwarded.
var credentials = []string{"Authorization", "X-Api-Key", "Cookie", transport.PrincipalHeader}

// answer completes the header of what is answered.
type answer struct {
	http.ResponseWriter
	gateway  *gateway
	ctx      context.Context // of the request
	id       string
	origin   string // that may read the answer; "": the gateway's own alone
	secure   bool   // over TLS
	personal bool   // the request has credentials
	begun    bool
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader sends the header, completed.
func (a *answer) WriteHeader(status int) {
	if status >= 200 && !a.begun {
		a.begun = true
		a.complete()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// Hijack is for http.ResponseController. When the service has closed its end, ReverseProxy still
// waits for the client; the end of the request's context ends that wait.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		context.AfterFunc(a.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	}
	return conn, rw, err
}

// FlushError is what http.ResponseController looks for.
func (a *answer) FlushError() error {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) complete() {
	h := a.Header()
	h.Del(dependency.Header)
	h["X-Request-Id"] = []string{a.id}
	for name, value := range defaults {
		if len(h[name]) == 0 {
			h[name] = value
		}
	}
	if a.secure && len(h["Strict-Transport-Security"]) == 0 {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if a.personal && len(h["Cache-Control"]) == 0 {
		h.Set("Cache-Control", "no-store")
	}
	if len(a.gateway.set.CORSOrigins) > 0 {
		h.Add("Vary", "Origin")
	}
	if a.origin != "" {
		h.Set("Access-Control-Allow-Origin", a.origin)
		h.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, X-Request-Id")
	}
}

func (a *answer) refuse(r *http.Request, p server.Problem) {
	if p.Status == http.StatusMethodNotAllowed {
		a.Header().Set("Allow", strings.Join(methods, ", "))
	}
	p.Instance = telemetry.Cut(r.URL.Path)
	server.WriteProblem(a, r, p)
}
