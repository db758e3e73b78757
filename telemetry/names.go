package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
)

// The names of span attributes: those of OpenTelemetry's semantic conventions where they have one.
// Both ends of a call use the same. The conventions' own package has another import path with each
// release, so the names are repeated here.
const (
	ErrorType   = attribute.Key("error.type") // a status, a gRPC code, or what kept a call from an answer
	PeerService = attribute.Key("service.peer.name")
	ServerHost  = attribute.Key("server.address")
	ServerPort  = attribute.Key("server.port")

	HTTPMethod      = attribute.Key("http.request.method")
	HTTPStatus      = attribute.Key("http.response.status_code")
	HTTPRoute       = attribute.Key("http.route")
	HTTPResendCount = attribute.Key("http.request.resend_count")
	HTTPVersion     = attribute.Key("network.protocol.version")
	URLFull         = attribute.Key("url.full")
	URLPath         = attribute.Key("url.path")

	RPCSystem = attribute.Key("rpc.system.name")
	RPCMethod = attribute.Key("rpc.method") // package.Service/Method
	RPCStatus = attribute.Key("rpc.response.status_code")

	MessagingTopic     = attribute.Key("messaging.destination.name")
	MessagingGroup     = attribute.Key("messaging.consumer.group.name")
	MessagingID        = attribute.Key("messaging.message.id")
	MessagingOperation = attribute.Key("messaging.operation.name")

	Instance        = attribute.Key("kaptar.instance")         // that a call went to
	RPCResendCount  = attribute.Key("kaptar.rpc.resend_count") // attempts after the first
	StreamEnd       = attribute.Key("kaptar.stream.end")       // how an answer that is a stream ended
	DeliveryAttempt = attribute.Key("kaptar.delivery.attempt") // 1 for the first
)

// RPCStatusName returns the value of RPCStatus for a gRPC code, such as "NOT_FOUND".
func RPCStatusName(c codes.Code) string {
	return code.Code(c).String() //nolint:gosec // codes are small numbers
}

// TraceID returns the trace id of the span of ctx in hexadecimal, "" if there is none.
func TraceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}
