// Package label makes labels of metrics of what others send, of which there are few whatever that is.
package label

import (
	"strconv"

	"google.golang.org/grpc/codes"
)

// Other stands for HTTP statuses that are none.
const Other = "other"

// Status is the label of an HTTP status: its digits from 100 to 599, Other for all others, which a
// target, or a proxied answer, could make up.
func Status(status int) string {
	if status < 100 || status > 599 {
		return Other
	}
	return strconv.Itoa(status)
}

// Code is a gRPC code as a label: Unknown for numbers that gRPC does not define.
func Code(code codes.Code) codes.Code {
	if code > codes.Unauthenticated {
		return codes.Unknown
	}
	return code
}
