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

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/telemetry"
)

// statusClientGone is what metrics and log say of a request whose client went
// away before there was an answer. It is never sent.
const statusClientGone = 499

// serve takes one request of the service through the chain.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, server: s, start: time.Now()}
	x.method = knownMethod(r.Method)
	ctx := telemetry.Extract(r.Context(), func(key string) string { return traceHeader(r.Header, key) })
	ctx, x.span = s.tracer.Start(ctx, x.method, serverKind...)
	x.base = ctx
	at, set, byCaller := s.deadline(r, x.start)
	x.byCaller = byCaller
	var cancel context.CancelFunc
	if set {
		ctx, cancel = context.WithDeadline(ctx, at)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	x.req = r.WithContext(ctx)
	x.flight = flight{method: r.Method, name: r.URL.Path, cancel: cancel}
	// Not over before its records are made, or a shutdown would lose them.
	admitted := s.flights.add(&x.flight)
	if admitted {
		defer s.flights.remove(&x.flight)
	}
	defer x.finish()
	if !admitted {
		x.fail(Problem{Status: http.StatusServiceUnavailable, Detail: "the server has shut down"})
		return
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		x.fail(Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline had passed before the work began"})
	case s.opts.MaxBody >= 0 && r.ContentLength > s.opts.MaxBody:
		x.tooLarge = true
		x.fail(x.tooLargeProblem())
	default:
		x.limitBody()
		s.mux.ServeHTTP(x, x.req)
	}
}

var serverKind = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// traceHeader reads without making the key canonical again, which allocates.
func traceHeader(h http.Header, key string) string {
	var v []string
	switch key {
	case "traceparent":
		v = h["Traceparent"]
	case "tracestate":
		v = h["Tracestate"]
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// finish settles what the handler has left open and makes the records. It is
// deferred, and recovers.
func (x *exchange) finish() {
	p := recover()
	abort := x.settle(p)
	status := x.status
	rm := x.server.metrics.route(x.method, x.req.Pattern)
	took := time.Since(x.start)
	x.server.metrics.observe(rm, status, took.Seconds())
	if x.span.IsRecording() {
		x.describeSpan(rm)
	}
	x.span.End()
	ctx := x.req.Context()
	if x.server.log.Enabled(ctx, slog.LevelInfo) {
		x.server.log.LogAttrs(ctx, slog.LevelInfo, "request",
			slog.String("method", x.req.Method),
			slog.String("path", x.req.URL.Path),
			slog.String("route", rm.endpoint),
			slog.Int("status", status),
			slog.Float64("duration_ms", float64(took.Microseconds())/1000),
			slog.Int64("bytes", x.bytes),
		)
	}
	if abort {
		panic(http.ErrAbortHandler) // net/http's way to cut the connection without a word
	}
}

// settle answers where the handler did not, p being what it panicked with. It
// reports whether the client must not take the answer for complete.
func (x *exchange) settle(p any) (abort bool) {
	ctx := x.req.Context()
	if x.streaming {
		ctx = x.base
	}
	abort = p != nil
	if p != nil && p != http.ErrAbortHandler {
		x.server.log.LogAttrs(ctx, slog.LevelError, "panic in handler",
			slog.String("method", x.req.Method), slog.String("path", x.req.URL.Path),
			slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
		if x.status == 0 {
			x.fail(Problem{Status: http.StatusInternalServerError, Detail: "the handler failed unexpectedly"})
			abort = false
		}
	}
	switch {
	case x.status != 0:
	case abort:
		x.status = http.StatusInternalServerError
	case x.tooLarge:
		x.fail(x.tooLargeProblem())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		x.fail(Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline passed before there was an answer"})
	case ctx.Err() != nil:
		x.status = statusClientGone
	default:
		x.status = http.StatusOK
	}
	return abort
}

func (x *exchange) describeSpan(rm *routeMetrics) {
	x.span.SetName(rm.span)
	attrs := []attribute.KeyValue{
		attribute.String("http.request.method", x.method),
		attribute.String("url.path", x.req.URL.Path),
		attribute.Int("http.response.status_code", x.status),
		attribute.String("network.protocol.version", strings.TrimSuffix(strings.TrimPrefix(x.req.Proto, "HTTP/"), ".0")),
	}
	if rm.endpoint != unmatched {
		attrs = append(attrs, attribute.String("http.route", rm.endpoint))
	}
	if x.status >= 500 {
		attrs = append(attrs, attribute.String("error.type", statusText(x.status)))
		x.span.SetStatus(codes.Error, http.StatusText(x.status))
	}
	x.span.SetAttributes(attrs...)
}

func statusText(status int) string { return strconv.Itoa(status) }
