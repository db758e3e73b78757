package transport

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/telemetry"
)

// Attributes of calls that did not go as usual.
const (
	hedgedAttr   = attribute.Key("kaptar.hedged")   // the answer is that of a second attempt at the same time
	faultAttr    = attribute.Key("kaptar.fault")    // what was made to go wrong on purpose
	fallbackAttr = attribute.Key("kaptar.fallback") // the call failed, and its caller's fallback answered
)

// startSpan starts the span of a call, and reports whether it is recorded: then it needs a name.
func (c *call) startSpan() bool {
	c.t.tel.Begin(&c.span, "", trace.SpanKindClient, trace.SpanContextFromContext(c.ctx))
	c.ctx = c.span.Context(c.ctx)
	if !c.span.IsRecording() {
		return false
	}
	c.span.SetAttributes(c.tg.spanAttrs...)
	return true
}

// spanAttrs are the attributes of all spans of calls to a target.
func spanAttrs(target string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		host = target
	}
	attrs := []attribute.KeyValue{telemetry.ServerHost.String(host), telemetry.PeerService.String(target)}
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, telemetry.ServerPort.Int(n))
	}
	return attrs
}

// shown is u for spans and errors: without user and query, in which anything may be a secret.
func shown(u *url.URL) string {
	if u == nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Opaque: u.Opaque, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

func (c *httpCall) startHTTPSpan() {
	method := cmp.Or(c.req.Method, http.MethodGet)
	if c.startSpan() {
		c.span.SetName(method + " " + c.tg.name)
		c.span.SetAttributes(telemetry.HTTPMethod.String(method), telemetry.URLFull.String(shown(c.req.URL)))
	}
}

// endHTTPHead notes the status; the span ends with the body.
func (c *httpCall) endHTTPHead(status int) {
	if !c.span.IsRecording() {
		return
	}
	c.noteAttempts(telemetry.HTTPStatus.Int(status), telemetry.HTTPResendCount)
	if status >= 400 {
		c.span.SetAttributes(telemetry.ErrorType.String(strconv.Itoa(status)))
		c.span.SetStatus(otelcodes.Error, "")
	}
}

func (c *httpCall) endHTTPSpan(why string, err error) {
	if c.span.IsRecording() {
		c.noteAttempts(telemetry.ErrorType.String(why), telemetry.HTTPResendCount)
		c.span.SetStatus(otelcodes.Error, err.Error())
	}
	c.span.End()
}

// noteAttempts adds where the last attempt went and, as resends, how many there were before it.
func (c *call) noteAttempts(more attribute.KeyValue, resends attribute.Key) {
	c.span.SetAttributes(more)
	if c.in != nil {
		c.span.SetAttributes(telemetry.Instance.String(c.in.ID))
	}
	if c.attempts > 1 {
		c.span.SetAttributes(resends.Int(c.attempts - 1))
	}
}

func (c *rpcCall) startRPCSpan() {
	if c.startSpan() {
		name := strings.TrimPrefix(c.method, "/")
		c.span.SetName(name)
		c.span.SetAttributes(telemetry.RPCSystem.String("grpc"), telemetry.RPCMethod.String(name))
	}
	sc := c.span.SpanContext()
	c.trace.Parent = telemetry.FormatTraceparent(sc)
	if c.trace.Parent != "" && sc.TraceState().Len() > 0 {
		c.trace.State = sc.TraceState().String()
	}
}

// traced is the context of an attempt that sends trace, principal and versions on, unless the option of a
// unary call within the process does.
func (c *rpcCall) traced() context.Context {
	c.option = inproc.Trace{}
	c.trace.Principal, c.trace.Version = c.sends()
	if _, within := c.local.grpc.(*inproc.Channel); within && c.args != nil {
		c.option = c.trace
		return c.ctx
	}
	var pairs [8]string
	list := pairs[:0]
	for _, p := range [...][2]string{
		{"traceparent", c.trace.Parent}, {"tracestate", c.trace.State}, {principalKey, c.trace.Principal}, {wanted.Metadata, c.trace.Version},
	} {
		if p[1] != "" {
			list = append(list, p[0], p[1])
		}
	}
	if len(list) == 0 {
		return c.ctx
	}
	return metadata.AppendToOutgoingContext(c.ctx, list...)
}

func (c *rpcCall) endRPCSpan(code codes.Code, err error) {
	if c.span.IsRecording() {
		name := telemetry.RPCStatusName(code)
		c.noteAttempts(telemetry.RPCStatus.String(name), telemetry.RPCResendCount)
		if err != nil {
			c.span.SetAttributes(telemetry.ErrorType.String(name))
			c.span.SetStatus(otelcodes.Error, err.Error())
		}
	}
	c.span.End()
}
