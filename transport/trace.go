package transport

import (
	"cmp"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/telemetry"
)

// startSpan starts the span of a call. Attributes are only computed for a span that is recorded.
func (c *call) startSpan(name string, attributes func() []attribute.KeyValue) {
	c.ctx, c.span = c.t.tracer.Start(c.ctx, name, c.t.spanKind...)
	if !c.span.IsRecording() {
		return
	}
	host, port, err := net.SplitHostPort(c.tg.name)
	if err != nil {
		host = c.tg.name
	}
	attrs := append(attributes(), telemetry.ServerHost.String(host), telemetry.PeerService.String(c.tg.name))
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, telemetry.ServerPort.Int(n))
	}
	c.span.SetAttributes(attrs...)
}

func (c *httpCall) startHTTPSpan() {
	method := cmp.Or(c.req.Method, http.MethodGet)
	c.startSpan(c.tg.spanName(method), func() []attribute.KeyValue {
		return []attribute.KeyValue{telemetry.HTTPMethod.String(method), telemetry.URLFull.String(c.req.URL.Redacted())}
	})
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
	attrs := append(make([]attribute.KeyValue, 0, 3), more)
	if c.in != nil {
		attrs = append(attrs, telemetry.Instance.String(c.in.ID))
	}
	if c.attempts > 1 {
		attrs = append(attrs, resends.Int(c.attempts-1))
	}
	c.span.SetAttributes(attrs...)
}

// startRPCSpan starts the client span and sends its trace context on.
func (c *rpcCall) startRPCSpan() {
	name := strings.TrimPrefix(c.method, "/")
	c.startSpan(name, func() []attribute.KeyValue {
		return []attribute.KeyValue{telemetry.RPCSystem.String("grpc"), telemetry.RPCMethod.String(name)}
	})
	propagation.TraceContext{}.Inject(c.ctx, &c.carrier)
	if n := c.carrier.n; n > 0 {
		c.ctx = metadata.AppendToOutgoingContext(c.ctx, c.carrier.pairs[:n]...)
	}
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

// headerCarrier writes the trace headers of an attempt, and saves the allocation of their values.
type headerCarrier struct {
	header http.Header
	values [3]string // traceparent, tracestate, deadline
}

func (h *headerCarrier) Set(key, value string) {
	switch key {
	case "traceparent":
		h.values[0] = value
		h.header["Traceparent"] = h.values[0:1:1]
	case "tracestate":
		h.values[1] = value
		h.header["Tracestate"] = h.values[1:2:2]
	}
}

func (*headerCarrier) Get(string) string { return "" } // it is write only
func (*headerCarrier) Keys() []string    { return nil }

// pairsCarrier collects the trace headers of a gRPC call as its outgoing metadata wants them.
type pairsCarrier struct {
	pairs [4]string
	n     int
}

func (p *pairsCarrier) Set(key, value string) {
	if p.n < len(p.pairs) {
		p.pairs[p.n], p.pairs[p.n+1] = key, value
		p.n += 2
	}
}

func (*pairsCarrier) Get(string) string { return "" } // it is write only
func (*pairsCarrier) Keys() []string    { return nil }

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
