package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/wire"
)

// deadline returns until when r may take. set is false when there is no limit
// beyond that of the context; byCaller tells a limit that the caller wants
// from our default.
func (s *Server) deadline(r *http.Request, now time.Time) (at time.Time, set, byCaller bool) {
	if h := r.Header[http.CanonicalHeaderKey(wire.DeadlineHeader)]; len(h) > 0 {
		if d, ok := wire.ParseTimeout(h[0]); ok {
			return now.Add(d), true, true
		}
		if h[0] == "0" || strings.HasPrefix(h[0], "-") {
			return now, true, true
		}
	}
	if at, ok := r.Context().Deadline(); ok {
		return at, false, true
	}
	if s.opts.Timeout < 0 {
		return at, false, false
	}
	return now.Add(s.opts.Timeout), true, false
}

// Streaming lifts from h what suits an answer but not a stream such as
// server-sent events: the default deadline Options.Timeout and the 30 s within
// which the body must arrive. A deadline that the caller asked for stays, and
// so does the end of the context when the client goes away.
//
// It finds the server through the Unwrap methods of the http.ResponseWriter,
// as http.ResponseController does; outside of a Server it changes nothing.
func Streaming(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(w)
		if x == nil || x.byCaller {
			h.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(lifted{x.base, r.Context()})
		defer cancel()
		x.server.flights.setCancel(&x.flight, cancel)
		x.streaming = true
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// lifted ends with one context and has the values of another.
type lifted struct {
	context.Context
	values context.Context
}

func (l lifted) Value(key any) any { return l.values.Value(key) }

func exchangeOf(w http.ResponseWriter) *exchange {
	for w != nil {
		if x, ok := w.(*exchange); ok {
			return x
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
	return nil
}
