package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/telemetry"
)

// statusClientGone is what metrics and log say of a request whose client went away before there was
// an answer. It is never sent.
const statusClientGone = 499

// serve takes one request of the service through the chain.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, server: s, start: time.Now(), maxBody: s.opts.MaxBody}
	x.method = knownMethod(r.Method)
	wrong := x.arrive(r)
	parent := telemetry.ParseTraceparent(first(r.Header["Traceparent"]), first(r.Header["Tracestate"]))
	s.begin(&x.span, x.method, parent, s.opts.TraceFrom.Has(r.RemoteAddr))
	x.req = r
	wants := s.wants(r)
	ctx := x.limitTime(r)
	if r.Context() == context.Context(x.limit) { // within the process
		x.limit.Carry(wants.Context(x.span.Context(context.Background())))
	} else {
		ctx = wants.Context(x.span.Context(ctx))
		x.req = r.WithContext(ctx)
	}
	x.flight = flight{limit: x.limit, x: x, method: telemetry.Cut(r.Method), name: telemetry.Cut(r.URL.Path)}
	// Not over before its records are made, or a shutdown would lose them.
	admitted := s.flights.add(&x.flight)
	defer s.flights.remove(&x.flight)
	defer x.finish()
	switch {
	case !admitted:
		x.fail(Problem{Status: http.StatusServiceUnavailable, Detail: "the server has shut down"})
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		x.fail(Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline had passed before the work began"})
	case wrong != "":
		x.fail(Problem{Status: http.StatusBadRequest, Detail: wrong})
	case !s.knows(ctx, r.TLS, connOf(r) != nil):
		x.fail(Problem{Status: http.StatusForbidden, Detail: noPeer})
	case x.enter(ctx):
		x.limitBody()
		s.inner.ServeHTTP(x, x.req)
	}
}

// begin starts a span as a child of its caller's, or as the root of a trace that is linked to it.
func (s *Server) begin(span *telemetry.Span, name string, caller trace.SpanContext, trusted bool) {
	if trusted || !caller.IsValid() {
		s.tel.Begin(span, name, trace.SpanKindServer, caller)
		return
	}
	s.tel.Begin(span, name, trace.SpanKindServer, trace.SpanContext{})
	span.AddLink(trace.Link{SpanContext: caller})
}

// limitTime starts the deadline of r. A call within the process brings a limit along.
func (x *exchange) limitTime(r *http.Request) context.Context {
	ctx := r.Context()
	at, ours := x.server.deadline(r, x.start)
	x.limit = deadline.Of(ctx)
	if x.limit == nil || x.limit.Owner() != nil {
		x.limit = new(deadline.Limit) // not a part of x, which needs none within the process
		ctx = x.limit.Start(ctx, at)
	} else if !at.IsZero() {
		x.limit.Move(at)
	}
	x.limit.Own(x)
	x.limit.Choose(ours)
	if at, ok := ctx.Deadline(); ok {
		x.allowed = at.Sub(x.start)
	}
	return ctx
}

// exchangeOf finds the exchange that a context belongs to, nil outside of a Server.
func exchangeOf(ctx context.Context) *exchange {
	if l := deadline.Of(ctx); l != nil {
		x, _ := l.Owner().(*exchange)
		return x
	}
	return nil
}

// deadline returns until when r may take, and whether our settings say so; the zero time when there
// is no limit beyond that of the context.
func (s *Server) deadline(r *http.Request, now time.Time) (at time.Time, ours bool) {
	if h := r.Header[deadline.Header]; len(h) > 0 {
		if s.opts.DeadlineFrom.Has(r.RemoteAddr) {
			if d, ok := deadline.Parse(h[0]); ok {
				return now.Add(d), false
			}
			if h[0] == "0" || strings.HasPrefix(h[0], "-") {
				return now, false
			}
		} else {
			delete(r.Header, deadline.Header)
		}
	}
	if _, ok := r.Context().Deadline(); ok || s.opts.Timeout < 0 {
		return time.Time{}, false
	}
	return now.Add(s.opts.Timeout), true
}

// wants reads which versions of other services the calls of a request ask for. What anybody but
// Options.VersionFrom says is removed, and what cannot be read, or comes twice, has no effect.
func (s *Server) wants(r *http.Request) *wanted.Set {
	h := r.Header[wanted.Header]
	switch {
	case len(h) == 0:
		return nil
	case !s.opts.VersionFrom.Has(r.RemoteAddr):
		delete(r.Header, wanted.Header)
		return nil
	case len(h) > 1:
		return nil
	}
	return wanted.Parse(h[0])
}

// first is the value of a header that comes once.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// finish answers what the handler has left open and makes the records. It is deferred, and
// recovers.
func (x *exchange) finish() {
	p := recover()
	abort := x.answer(p)
	end := x.ending(abort)
	x.limit.Cancel(nil)
	m := x.server.metrics
	rm := m.route(x.method, x.route())
	now := time.Now()
	took := now.Sub(x.start)
	if x.streaming {
		m.streams.WithLabelValues(m.service, rm.method, rm.endpoint, end).Inc()
	} else {
		x.head = took
	}
	m.observe(rm, x.status, x.head.Seconds())
	if measured, ok := x.counts(); measured {
		x.slot.Release(now, &rm.latency, ok)
	} else {
		x.leave()
	}
	if x.span.IsRecording() {
		x.describeSpan(rm, end)
	}
	x.span.End()
	x.log(rm, now, took, end)
	if abort {
		panic(http.ErrAbortHandler) // net/http's way to cut the connection without a word
	}
	x.linger()
}

// log writes the line of the access log. It tells how an answer ended that is a stream or that
// was not completed, and the X-Request-Id of the answer.
func (x *exchange) log(rm *routeMetrics, now time.Time, took time.Duration, end string) {
	ctx, h := x.req.Context(), x.server.log.Handler()
	if !h.Enabled(ctx, slog.LevelInfo) {
		return
	}
	// Not through the Logger, which looks up the caller for each record.
	r := slog.NewRecord(now, slog.LevelInfo, "request", 0)
	r.AddAttrs(
		slog.String("method", x.flight.method),
		slog.String("path", x.flight.name),
		slog.String("route", rm.endpoint),
		slog.Int("status", x.status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes", x.bytes),
	)
	if x.streaming || end != endFinished {
		r.AddAttrs(slog.String("end", end))
	}
	if id := first(x.Header()["X-Request-Id"]); id != "" {
		r.AddAttrs(slog.String("request_id", telemetry.Cut(id)))
	}
	_ = h.Handle(ctx, r) // as the Logger, which has nobody to tell
}

// answer responds where the handler did not, p being what it panicked with. It reports whether the
// client must not take the answer for complete.
func (x *exchange) answer(p any) (abort bool) {
	ctx := x.req.Context()
	abort = p != nil
	if p != nil && p != http.ErrAbortHandler {
		x.server.log.LogAttrs(ctx, slog.LevelError, "panic in handler",
			slog.String("method", x.flight.method), slog.String("path", x.flight.name),
			slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
		if x.status == 0 {
			x.fail(Problem{Status: http.StatusInternalServerError, Detail: "the handler failed unexpectedly"})
			abort = false
		}
	}
	if x.status != 0 && x.status < 500 {
		return abort
	}
	gone := errors.Is(context.Cause(ctx), context.Canceled)
	switch {
	case x.status >= 500 && gone && p == nil && !x.streaming:
		x.status = statusClientGone // it is not there to see what its leaving has led to
	case x.status != 0:
	case abort:
		x.status = http.StatusInternalServerError
	case x.bodyFault.Load() > http.StatusBadRequest, errors.Is(ctx.Err(), context.DeadlineExceeded):
		p, ok := x.bodyProblem(http.StatusGatewayTimeout)
		if !ok {
			p = Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline passed before there was an answer"}
		}
		x.fail(p)
	case gone:
		x.status = statusClientGone
	case ctx.Err() != nil:
		x.fail(Problem{Status: http.StatusServiceUnavailable, Detail: "the server stops"})
	default:
		x.status = http.StatusOK
	}
	return abort
}

func (x *exchange) describeSpan(rm *routeMetrics, end string) {
	x.span.SetName(rm.span)
	x.span.SetAttributes(
		telemetry.HTTPMethod.String(x.method),
		telemetry.URLPath.String(x.flight.name),
		telemetry.HTTPStatus.Int(x.status),
		telemetry.HTTPVersion.String(strings.TrimSuffix(strings.TrimPrefix(x.req.Proto, "HTTP/"), ".0")),
	)
	if rm.endpoint != unmatched {
		x.span.SetAttributes(telemetry.HTTPRoute.String(rm.endpoint))
	}
	if x.streaming {
		x.span.SetAttributes(telemetry.StreamEnd.String(end))
	}
	if x.status >= 500 {
		x.span.SetAttributes(telemetry.ErrorType.String(strconv.Itoa(x.status)))
		x.span.SetStatus(codes.Error, http.StatusText(x.status))
	}
}
