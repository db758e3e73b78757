package transport

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// startHTTPSpan starts the client span. Attributes are only computed for a span that is recorded. They have OpenTelemetry's
// names, written out: its package of constants is changed with every release.
func (c *httpCall) startHTTPSpan() {
	method := c.req.Method
	if method == "" {
		method = http.MethodGet
	}
	c.ctx, c.span = c.t.tracer.Start(c.ctx, c.tg.spanName(method), c.t.spanKind...)
	if !c.span.IsRecording() {
		return
	}
	host, port, err := net.SplitHostPort(c.req.URL.Host)
	if err != nil {
		host = c.req.URL.Host
	}
	attrs := make([]attribute.KeyValue, 0, 5)
	attrs = append(attrs,
		attribute.String("http.request.method", method),
		attribute.String("server.address", host),
		attribute.String("url.full", c.req.URL.Redacted()),
		attribute.String("peer.service", c.tg.name),
	)
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, attribute.Int("server.port", n))
	}
	c.span.SetAttributes(attrs...)
}

// endHTTPHead notes the status; the span ends with the body.
func (c *httpCall) endHTTPHead(status int) {
	if !c.span.IsRecording() {
		return
	}
	c.noteAttempts(attribute.Int("http.response.status_code", status))
	if status >= 400 {
		c.span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		c.span.SetStatus(otelcodes.Error, "")
	}
}

func (c *httpCall) endHTTPSpan(why string, err error) {
	if c.span.IsRecording() {
		c.noteAttempts(attribute.String("error.type", why))
		c.span.SetStatus(otelcodes.Error, err.Error())
	}
	c.span.End()
}

func (c *call) recordError(err error) {
	if c.span.IsRecording() {
		c.span.SetAttributes(attribute.String("error.type", word(err)))
		c.span.SetStatus(otelcodes.Error, err.Error())
	}
}

// noteAttempts adds where the last attempt went and how many there were before it.
func (c *call) noteAttempts(more attribute.KeyValue) {
	attrs := append(make([]attribute.KeyValue, 0, 3), more)
	if c.in != nil {
		attrs = append(attrs, attribute.String("kaptar.instance", c.in.ID))
	}
	if c.attempts > 1 {
		attrs = append(attrs, attribute.Int("http.request.resend_count", c.attempts-1))
	}
	c.span.SetAttributes(attrs...)
}

// startRPCSpan starts the client span of a gRPC call; method has a leading slash.
func (c *call) startRPCSpan(method string) {
	method = strings.TrimPrefix(method, "/")
	c.ctx, c.span = c.t.tracer.Start(c.ctx, method, c.t.spanKind...)
	if !c.span.IsRecording() {
		return
	}
	c.span.SetAttributes(
		attribute.String("rpc.system.name", "grpc"),
		attribute.String("rpc.method", method),
		attribute.String("server.address", c.tg.name),
		attribute.String("peer.service", c.tg.name),
	)
}

// endRPCSpan ends it with the code's name.
func (c *call) endRPCSpan(code string, err error) {
	if c.span.IsRecording() {
		c.noteAttempts(attribute.String("rpc.response.status_code", code))
		if err != nil {
			c.span.SetAttributes(attribute.String("error.type", code))
			c.span.SetStatus(otelcodes.Error, err.Error())
		}
	}
	c.span.End()
}

// clientKind is the option of every span, made once.
func clientKind() []trace.SpanStartOption {
	return []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
}

// spanName is "GET order-service". The usual ones are made once.
func (t *target) spanName(method string) string {
	if name, ok := t.spanNames[method]; ok {
		return name
	}
	return method + " " + t.name
}

func spanNames(target string) map[string]string {
	names := make(map[string]string, 4)
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		names[method] = method + " " + target
	}
	return names
}
