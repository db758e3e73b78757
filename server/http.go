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

// statusClientGone is the status in metrics and log of a request whose client left before it was
// answered. It is never sent.
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
	// The request is in flight until its metrics and log are written, or a shutdown would lose them.
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

// begin starts a span as a child of the caller's span or, if the caller is not trusted, as the root
// of a new trace with a link to it.
func (s *Server) begin(span *telemetry.Span, name string, caller trace.SpanContext, trusted bool) {
	if trusted || !caller.IsValid() {
		s.tel.Begin(span, name, trace.SpanKindServer, caller)
		return
	}
	s.tel.Begin(span, name, trace.SpanKindServer, trace.SpanContext{})
	span.AddLink(trace.Link{SpanContext: caller})
}

// limitTime starts the deadline of r. A call within the process brings a Limit of its own.
func (x *exchange) limitTime(r *http.Request) context.Context {
	ctx := r.Context()
	at, ours := x.server.deadline(r, x.start)
	x.limit = deadline.Of(ctx)
	if x.limit == nil || x.limit.Owner() != nil {
		x.limit = new(deadline.Limit) // not a field of x: calls within the process do not need it
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

// exchangeOf returns the exchange of a context, nil outside of a Server.
func exchangeOf(ctx context.Context) *exchange {
	if l := deadline.Of(ctx); l != nil {
		x, _ := l.Owner().(*exchange)
		return x
	}
	return nil
}

// deadline returns the deadline of r, and whether it comes from our settings. It is the zero time
// if there is none besides that of the context.
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

// wants returns the versions of other services that the request asks for. The header is removed if
// it does not come from Options.VersionFrom, and ignored if it is malformed or comes twice.
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

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// finish sends an answer if the handler has not, and writes span, metrics and log. It is deferred,
// and recovers a panic of the handler.
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
		panic(http.ErrAbortHandler) // makes net/http cut the connection without a log line
	}
	x.linger()
}

// log writes the line of the access log. For a stream, and for an answer that was not completed, it
// says how that ended. It has the X-Request-Id of the answer if there is one.
func (x *exchange) log(rm *routeMetrics, now time.Time, took time.Duration, end string) {
	ctx, h := x.req.Context(), x.server.log.Handler()
	if !h.Enabled(ctx, slog.LevelInfo) {
		return
	}
	// The Logger would look up the calling function for each record.
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
	_ = h.Handle(ctx, r) // a Logger ignores the error too
}

// answer sends an answer if the handler did not; p is the value with which it panicked, or nil. It
// reports whether the connection must be cut, because the answer is not complete.
func (x *exchange) answer(p any) (abort bool) {
	ctx := x.req.Context()
	abort = p != nil
	if p != nil && p != http.ErrAbortHandler && !x.gaveUp(p) {
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
		x.status = statusClientGone // the error is likely the result of its leaving
	case x.status != 0:
	case abort:
		x.status = http.StatusInternalServerError
	case x.fault() > http.StatusBadRequest, errors.Is(ctx.Err(), context.DeadlineExceeded):
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
