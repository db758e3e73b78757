package telemetry_test

import (
	"testing"

	attr "go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/telemetry"
)

func TestNamesAreTheConventions(t *testing.T) {
	t.Parallel()
	for got, want := range map[attr.Key]attr.Key{
		telemetry.ErrorType:          semconv.ErrorTypeKey,
		telemetry.PeerService:        semconv.ServicePeerNameKey,
		telemetry.ServerHost:         semconv.ServerAddressKey,
		telemetry.ServerPort:         semconv.ServerPortKey,
		telemetry.HTTPMethod:         semconv.HTTPRequestMethodKey,
		telemetry.HTTPStatus:         semconv.HTTPResponseStatusCodeKey,
		telemetry.HTTPRoute:          semconv.HTTPRouteKey,
		telemetry.HTTPResendCount:    semconv.HTTPRequestResendCountKey,
		telemetry.HTTPVersion:        semconv.NetworkProtocolVersionKey,
		telemetry.URLFull:            semconv.URLFullKey,
		telemetry.URLPath:            semconv.URLPathKey,
		telemetry.RPCSystem:          semconv.RPCSystemNameKey,
		telemetry.RPCMethod:          semconv.RPCMethodKey,
		telemetry.RPCStatus:          semconv.RPCResponseStatusCodeKey,
		telemetry.MessagingTopic:     semconv.MessagingDestinationNameKey,
		telemetry.MessagingGroup:     semconv.MessagingConsumerGroupNameKey,
		telemetry.MessagingID:        semconv.MessagingMessageIDKey,
		telemetry.MessagingOperation: semconv.MessagingOperationNameKey,
	} {
		if got != want {
			t.Errorf("%s: the conventions say %s", got, want)
		}
	}
	for code, want := range map[codes.Code]string{codes.OK: "OK", codes.NotFound: "NOT_FOUND", codes.DeadlineExceeded: "DEADLINE_EXCEEDED"} {
		if got := telemetry.RPCStatusName(code); got != want {
			t.Errorf("RPCStatusName(%v) = %s, want %s", code, got, want)
		}
	}
}
